/* A cycle over edge convolutions in training, on the way forward: Algorithm 1 with the levels x + act(norm(conv(x))).
 *
 * Only what a level changes is prolonged, so the levels are written by their changes: with c_j = x_j + N(P d_{j+1}), level j
 * changes x_j by d_j = c_j - x_j + act(norm(conv(c_j))), and c is x on the coarsest one. Statistics of a normalisation need
 * all rows, hence the phases: maps down to all levels; then, level by level upwards, the convolution of corrected features,
 * cloud by cloud and group by group in the cache, and the change, with the moments of what it becomes on the next level.
 * Corrected features take half a group of multiply-adds a channel, so they are computed wherever they are needed and never
 * kept. */
#include "cycle.h"

/* Features of all levels from x. */
static void go_down(const Cycle *cycle, const float *x, float *nodes, float *small, int64_t threads) {
    int64_t size = cycle->size, pieces = cycle->clouds * pieces_of(size), few = turn_of(cycle);
    const float *weights[LEVELS];
    for (int64_t s = 0; s < cycle->steps; s++) {
        const Step *step = &cycle->step[s];
        weights[s] = turned(step->weight, step->groups, step->in, step->out, small);
        small += step->groups * step->in * step->out;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t number = 0; number < pieces; number++) {
        Piece piece = piece_of(number, size);
        for (int64_t turn = 0; turn < piece.count; turn += few) {
            int64_t first = piece.first + turn, count = least(few, piece.count - turn);
            const float *from = x;
            float *to = nodes;
            for (int64_t s = 0; s < cycle->steps; s++) {
                int64_t groups = cycle->step[s].groups, in = cycle->step[s].in, out = cycle->step[s].out;
                Lie x_at = features_at(!s, size, groups * in), at = in_panels(size, groups * out);
                for (int64_t row = 0, some = s ? count : FEW; row < count; row += some)
                    for (int64_t g = 0; g < groups; g++)
                        map_group((Map){from + row_at(x_at, piece.cloud, first + row), x_at, g * in, in,
                                        weights[s] + g * in * out, out, NULL, at, NULL,
                                        to + row_at(at, piece.cloud, first + row), at, g * out, s ? WRITTEN : READ | WRITTEN},
                                  least(some, count - row));
                from = to, to += cycle->clouds * at.cloud;
            }
        }
    }
}

/* z = conv(c), with its moments, and the ranks of the neighbours that attain the maxima. `small`: as large as conv; `work`:
 * scratch_of for each thread, then 2 * width for each cloud. */
static void convolve(const Cycle *cycle, const Level *level, const float *change, float *small, float *work, int64_t threads) {
    Shape shape = shape_of(cycle, level);
    int64_t size = cycle->size, group = level->group, half = level->half, both = 2 * group, tasks = tasks_of(&shape);
    Lie x_at = features_at(level->in_rows, size, level->width), at = in_panels(size, level->width), uv_at = of_uv(&shape);
    Lie change_at = in_panels(size, level->groups * half), own_at = {LANES, TURN * LANES, 0};
    float *moments = work + threads * scratch_of(&shape);
    for (int64_t c = 0; c < level->width; c++) /* (groups, in, 2 group): u = (W_a - W_b) x, v = W_b x */
        for (int64_t i = 0; i < group; i++) {
            float *to = small + (c / group * group + i) * both + c % group;
            to[group] = level->conv[c * both + group + i];
            to[0] = level->conv[c * both + i] - to[group];
        }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t number = 0; number < tasks; number++) {
        Task task = task_of(&shape, number);
        float *uv = work + omp_get_thread_num() * scratch_of(&shape), corrected[TURN * group];
        for (int64_t g = task.group; g < task.group + task.shape.groups; g++)
            for (int64_t first = 0; first < size; first += TURN) {
                int64_t count = least(TURN, size - first);
                const float *from = level->x + row_at(x_at, task.cloud, first) + channel_at(x_at, g * group);
                if (half)
                    map_group((Map){change + row_at(change_at, task.cloud, first), change_at, g * half, half,
                                    level->prolong + g * half * group, group, from, x_at, level->shift + g * group, corrected,
                                    own_at, 0, READ},
                              count);
                map_group((Map){half ? corrected : from, half ? own_at : x_at, 0, group, small + g * group * both, both, NULL,
                                uv_at, NULL, uv + first * LANES, uv_at, (g - task.group) * both, half ? 0 : READ},
                          count);
            }
        float *average = moments + task.cloud * 2 * level->width + task.channel;
        gather_all(&task, uv, cycle->col + task.base * cycle->degree, at, level->z + task.cloud * at.cloud,
                   level->best + task.cloud * at.cloud, average, average + level->width);
    }
    join_moments(moments, cycle->rows, size, level->width, level->mean, level->var);
}

/* out = start + act(norm(z)) of 16 channels of some rows. */
INLINE void activate(const Norm *norm, int64_t c, const float *z, const float *start, int64_t s_step, int64_t rows, float *out,
                     int64_t step) {
    vfloat mean = load(norm->mean + c), scale = load(norm->scale + c), shift = load(norm->shift + c);
    for (int64_t i = 0; i < rows; i++) {
        __builtin_prefetch(z + (i + SOON) * LANES);
        __builtin_prefetch(out + (i + SOON) * step, 1);
        vfloat y = leaky((load(z + i * LANES) - mean) * scale + shift, norm->slope);
        store(out + i * step, start ? load(start + i * s_step) + y : y);
    }
}

/* The change of a level from z and from that of the next coarser one, `below`; its mean, and the moments of what it becomes on
 * the next finer level, `above`. `small`: as large as the map up; `work`: 2 * above's width + width for each piece. */
static void change_of(const Cycle *cycle, const Level *level, const float *below, Level *above, float *small, float *work,
                      int64_t threads) {
    int64_t size = cycle->size, width = level->width, fine = above->width, group = above->group, half = above->half;
    int64_t pieces = cycle->clouds * pieces_of(size);
    Norm norm = {width, level->mean, level->scale, level->bias, level->slope};
    Lie at = in_panels(size, width), own_at = {LANES, PIECE * LANES, 0};
    Lie below_at = in_panels(size, level->groups * level->half);
    const float *prolong = turned(above->up, above->groups, half, group, small);
    float *sums = work + pieces * 2 * fine;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t number = 0; number < pieces; number++) {
        Piece piece = piece_of(number, size);
        int64_t row = row_at(at, piece.cloud, piece.first), count = piece.count;
        float *average = work + number * 2 * fine, *squares = average + fine, *sum = sums + number * width;
        float prolonged[PIECE * group];
        for (int64_t c = 0; c < width; c += LANES) {
            float *own = level->change + row + channel_at(at, c);
            if (level->half && c % level->group == 0)
                map_group((Map){below + row_at(below_at, piece.cloud, piece.first), below_at, c / level->group * level->half,
                                level->half, level->prolong + c * level->half, level->group, NULL, at, level->shift + c,
                                level->change + row, at, c, READ | WRITTEN},
                          count);
            activate(&norm, c, level->z + row + channel_at(at, c), level->half ? own : NULL, LANES, count, own, LANES);
            vfloat all_rows = {0};
            for (int64_t i = 0; i < count; i++) all_rows += load(own + i * LANES);
            store(sum + c, all_rows);
        }
        memset(average, 0, 2 * fine * sizeof(float));
        for (int64_t g = 0; g < above->groups; g++) {
            map_group((Map){level->change + row, at, g * half, half, prolong + g * half * group, group, NULL, own_at, NULL,
                            prolonged, own_at, 0, 0},
                      count);
            for (int64_t c = 0; c < group; c += LANES)
                for (int64_t i = 0; i < count; i += i + 8 <= count ? 8 : 1) {
                    const float *own = prolonged + c * PIECE + i * LANES;
                    if (i + 8 <= count)
                        more_moments(own, LANES, i, 8, average + g * group + c, squares + g * group + c);
                    else
                        more_moments(own, LANES, i, 1, average + g * group + c, squares + g * group + c);
                }
        }
    }
    join_pieces(work, cycle->clouds, size, PIECE, fine, above->correction_mean, above->correction_var);
    add_up(sums, pieces, width, above->center);
    for (int64_t c = 0; c < width; c++) above->center[c] /= (float)cycle->rows;
}

/* out = c + act(norm(z)) of the finest level, in rows. */
static void finish(const Cycle *cycle, const Level *level, const float *change, float *out, int64_t threads) {
    int64_t size = cycle->size, channels = level->width, group = level->group, half = level->half;
    int64_t pieces = cycle->clouds * pieces_of(size);
    Norm norm = {channels, level->mean, level->scale, level->bias, level->slope};
    Lie at = in_panels(size, channels), x_at = features_at(level->in_rows, size, channels), out_at = in_rows(size, channels);
    Lie change_at = in_panels(size, level->groups * half), own_at = {LANES, FEW * LANES, 0};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t number = 0; number < pieces; number++) {
        Piece piece = piece_of(number, size);
        float corrected[FEW * group];
        for (int64_t turn = 0; turn < piece.count; turn += FEW)
            for (int64_t c = 0; c < channels; c += LANES) {
                int64_t first = piece.first + turn, count = least(FEW, piece.count - turn);
                const float *from = level->x + row_at(x_at, piece.cloud, first) + channel_at(x_at, c);
                if (half && c % group == 0)
                    map_group((Map){change + row_at(change_at, piece.cloud, first), change_at, c / group * half, half,
                                    level->prolong + c * half, group, from, x_at, level->shift + c, corrected, own_at, 0, READ},
                              count);
                activate(&norm, c, level->z + row_at(at, piece.cloud, first) + channel_at(at, c),
                         half ? corrected + c % group * FEW : from, half ? LANES : x_at.step, count,
                         out + row_at(out_at, piece.cloud, first) + c, channels);
            }
    }
}

/* x, out: (clouds * size, channels); what comes before as in cycle_of. `small`: eight times as much as params has;
 * `work`: see Plan.scratch. */
void mgic_cycle(const int64_t *plan, const float *reals, const float *x, const float *params, const int32_t *col, float *nodes,
                float *z, uint8_t *best, float *change, float *moments, float *out, float *small, float *work,
                int64_t threads) {
    Cycle cycle = cycle_of(plan, reals, x, params, col, nodes, z, best, change, moments);
    go_down(&cycle, x, nodes, small, threads);
    for (int64_t j = cycle.levels - 1; j >= 0; j--) {
        Level *level = &cycle.level[j];
        const float *below = level->half ? cycle.level[j + 1].change : NULL;
        if (level->half) correct(level, TAKE(small, level->width * (level->half + 1)));
        convolve(&cycle, level, below, small, work, threads);
        level->scale = scale_of(level->weight, level->var, level->eps, level->width, TAKE(small, level->width));
        if (j)
            change_of(&cycle, level, below, level - 1, small, work, threads);
        else
            finish(&cycle, level, below, out, threads);
    }
}
