/* The gradient of a cycle over edge convolutions: the phases of cycle.c from the last to the first.
 *
 * A level's change d_j = c_j - x_j + act(norm(conv(c_j))) does not depend on x_j but through c_j = x_j + N(P d_{j+1}), and that
 * only by what passes the convolution: of the gradient of c_j, that part goes on to x_j, and all of it to N(P d_{j+1}).
 * On the finest level, where the output holds c_0 itself, all of it goes to both. */
#include "cycle_sums.h"

/* The gradient of the output, from rows into panels, and its sums, (2, width). `work`: 2 * width for each piece. */
static void begin_finest(const Cycle *cycle, const Level *level, const float *grad, float *panels, float *sums, float *work,
                         int64_t threads) {
    int64_t size = cycle->size, width = level->width, pieces = cycle->clouds * pieces_of(size);
    Norm norm = norm_of(level);
    Lie at = in_panels(size, width), grad_at = in_rows(size, width);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t number = 0; number < pieces; number++) {
        Piece piece = piece_of(number, size);
        float *own = work + number * 2 * width;
        memset(own, 0, 2 * width * sizeof(float));
        for (int64_t turn = 0; turn < piece.count; turn += FEW)
            for (int64_t c = 0; c < width; c += LANES) {
                int64_t row = row_at(at, piece.cloud, piece.first + turn) + channel_at(at, c);
                int64_t count = least(FEW, piece.count - turn);
                const float *from = grad + row_at(grad_at, piece.cloud, piece.first + turn) + c;
                for (int64_t i = 0; i < count; i++) {
                    __builtin_prefetch(from + (i + FEW) * width);
                    __builtin_prefetch(panels + row + (i + FEW) * LANES, 1);
                    store(panels + row + i * LANES, load(from + i * width));
                }
                add_sums(&norm, c, panels + row, level->z + row, count, own);
            }
    }
    join_sums(work, pieces, width, sums, sums + width);
}

/* Through the normalisation into u, and zeros into v. means, slopes: the sums over all rows, see norm_grad. */
static void begin(const Task *task, const Norm *norm, const float *grad, const float *z, Lie at, const float *means,
                  const float *slopes, float *grad_uv) {
    const Shape *shape = &task->shape;
    Lie uv_at = of_uv(shape);
    int64_t v = channel_at(uv_at, shape->group);
    for (int64_t c = 0; c < shape->groups * shape->group; c += LANES) {
        int64_t own = channel_at(at, task->channel + c);
        float *u = grad_uv + channel_at(uv_at, place(shape, c));
        for (int64_t i = 0; i < shape->size; i++) {
            __builtin_prefetch(grad + own + (i + SOON) * LANES);
            __builtin_prefetch(z + own + (i + SOON) * LANES);
            store(u + i * LANES, norm_grad(norm, task->channel + c, load(grad + own + i * LANES), load(z + own + i * LANES),
                                           means, slopes));
            store(u + v + i * LANES, all(0));
        }
    }
}

/* Some rows of a group of a change less its mean; the group's channels begin with 0. */
static void centred(const float *change, Lie at, int64_t from, const float *center, int64_t half, int64_t rows, float *out,
                    Lie out_at) {
    for (int64_t c = 0; c < half; c += LANES / 2) {
        const float *own = change + channel_at(at, from + c);
        vhalf mean = *(const vhalf *)(center + c);
        for (int64_t i = 0; i < rows; i++)
            *(vhalf *)(out + channel_at(out_at, c) + i * LANES) = *(const vhalf *)(own + i * LANES) - mean;
    }
}

/* From grad, that of a level's change, or of the output on the finest one: `passed`, there the same, takes what goes on to x,
 * and grad itself becomes all of the gradient of c on the levels between. means, slopes: as in `begin`. `small`: as large as
 * conv; `work`: scratch_of for each thread, then sums_size for each of shares_of(clouds). */
static void convolve_grad(const Cycle *cycle, int64_t j, float *grad, const float *means, const float *slopes, float *passed,
                          Sums sums, float *small, float *work, int64_t threads) {
    const Level *level = &cycle->level[j];
    Shape shape = shape_of(cycle, level);
    Norm norm = norm_of(level);
    int64_t size = cycle->size, groups = level->groups, group = level->group, half = level->half, both = 2 * group;
    int64_t tasks = shared_tasks_of(&shape), chunk = tasks_a_thread(&shape, threads), parts = shares_of(cycle->clouds);
    int64_t between = j && half;
    const float *change = half ? cycle->level[j + 1].change : NULL;
    Lie x_at = features_at(level->in_rows, size, level->width), at = in_panels(size, level->width), uv_at = of_uv(&shape);
    Lie change_at = in_panels(size, groups * half), turn_at = {LANES, TURN * LANES, 0};
    Sums shares = sums_in(work + threads * scratch_of(&shape), level, parts);
    for (int64_t c = 0; c < level->width; c++) /* (groups, 2 group, in): of u, then of v */
        for (int64_t i = 0; i < group; i++) {
            float *to = small + (c / group * both + c % group) * group + i;
            to[group * group] = level->conv[c * both + group + i];
            to[0] = level->conv[c * both + i] - to[group * group];
        }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, chunk)
    for (int64_t number = 0; number < tasks; number++) {
        Task task = shared_task_of(&shape, number);
        if (task.cloud >= cycle->clouds) continue;
        int64_t cloud = task.cloud * at.cloud;
        float *grad_uv = work + omp_get_thread_num() * scratch_of(&shape);
        float corrected[TURN * group], delta[TURN * (half + LANES)];
        begin(&task, &norm, grad + cloud, level->z + cloud, at, means, slopes, grad_uv);
        scatter_all(&task, level->best + cloud, at, cycle->col + task.base * cycle->degree, grad_uv);
        for (int64_t g = task.group; g < task.group + task.shape.groups; g++) {
            int64_t number_of = task.share * groups + g, from = (g - task.group) * both;
            float *grad_conv = shares.conv + number_of * group * both, *grad_bias = shares.bias + number_of * group;
            float *by = shares.by + number_of * half * group, *square = shares.square + number_of * half * half;
            if (task.begins) {
                memset(grad_conv, 0, group * both * sizeof(float));
                memset(grad_bias, 0, group * sizeof(float));
                memset(by, 0, half * group * sizeof(float));
                memset(square, 0, half * half * sizeof(float));
            }
            for (int64_t first = 0; first < size; first += TURN) {
                int64_t count = least(TURN, size - first), row = row_at(at, task.cloud, first);
                const float *of = grad_uv + first * LANES;
                const float *x = level->x + row_at(x_at, task.cloud, first) + channel_at(x_at, g * group);
                map_group((Map){of, uv_at, from, both, small + g * both * group, group, j ? NULL : grad + row, at, NULL,
                                passed + row, at, g * group, READ | WRITTEN},
                          count);
                if (!half) {
                    outer_panels(x, x_at, 0, group, of, uv_at, from, both, count, grad_conv, READ);
                    continue;
                }
                const float *below = change + row_at(change_at, task.cloud, first);
                map_group((Map){below, change_at, g * half, half, level->prolong + g * half * group, group, x, x_at,
                                level->shift + g * group, corrected, turn_at, 0, READ},
                          count);
                outer_panels(corrected, turn_at, 0, group, of, uv_at, from, both, count, grad_conv, 0);
                for (int64_t c = 0; c < group; c += LANES) {
                    int64_t panel = row + channel_at(at, g * group + c);
                    vfloat sum = load(grad_bias + c);
                    for (int64_t i = 0; i < count; i++) {
                        vfloat value = load(passed + panel + i * LANES);
                        if (between) {
                            value += load(grad + panel + i * LANES);
                            store(grad + panel + i * LANES, value);
                        }
                        sum += value;
                    }
                    store(grad_bias + c, sum);
                }
                centred(below, change_at, g * half, cycle->level[j].center + g * half, half, count, delta, turn_at);
                outer_panels(delta, turn_at, 0, half, (between ? grad : passed) + row, at, g * group, group, count, by, 0);
                outer_panels(delta, turn_at, 0, half, delta, turn_at, 0, half, count, square, 0);
            }
        }
    }
    add_up(shares.conv, parts, level->width * both, sums.conv);
    add_up(shares.bias, parts, level->width, sums.bias);
    add_up(shares.by, parts, level->width * half, sums.by);
    add_up(shares.square, parts, groups * half * half, sums.square);
}

/* The gradient of the change of level j + 1 from `total`, that of level j's c, and its sums, (2, width). `work`: 2 * width for
 * each piece. */
static void change_grad(const Cycle *cycle, int64_t j, const float *total, Back by, float *grad, float *sums, float *work,
                        int64_t threads) {
    const Level *fine = &cycle->level[j], *level = fine + 1;
    int64_t size = cycle->size, width = level->width, half = fine->half, group = fine->group;
    int64_t pieces = cycle->clouds * pieces_of(size);
    Norm norm = norm_of(level);
    Lie at = in_panels(size, width), total_at = in_panels(size, fine->width);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t number = 0; number < pieces; number++) {
        Piece piece = piece_of(number, size);
        float *own = work + number * 2 * width;
        int64_t row = row_at(at, piece.cloud, piece.first);
        memset(own, 0, 2 * width * sizeof(float));
        for (int64_t g = 0; g < fine->groups; g++) {
            map_group((Map){total + row_at(total_at, piece.cloud, piece.first), total_at, g * group, group,
                            by.back + g * group * half, half, NULL, at, by.constant + g * half, grad + row, at, g * half,
                            READ | WRITTEN},
                      piece.count);
            map_group((Map){level->change + row, at, g * half, half, by.spread + g * half * half, half, grad + row, at, NULL,
                            grad + row, at, g * half, READ},
                      piece.count);
        }
        for (int64_t c = 0; c < width; c += LANES)
            add_sums(&norm, c, grad + row + channel_at(at, c), level->z + row + channel_at(at, c), piece.count, own);
    }
    join_sums(work, pieces, width, sums, sums + width);
}

/* Adds to the gradients of all levels' features, `grads`, what comes up from the coarser ones. grad_x, which may be absent:
 * that of x, in rows, on top of `start` in panels if there is one; grad_w: those of the steps' weights, (groups, in, out) each.
 * `work`: as much as these for each of shares_of(pieces). */
static void go_up(const Cycle *cycle, const float *x, const float *nodes, float *grads, const float *start, float *grad_x,
                  float *grad_w, float *work, int64_t threads) {
    int64_t size = cycle->size, pieces = cycle->clouds * pieces_of(size), few = turn_of(cycle);
    int64_t weights = 0, last = 0;
    for (int64_t s = 0; s < cycle->steps; s++) {
        const Step *step = &cycle->step[s];
        weights += step->groups * step->in * step->out;
        last += s ? panels_of(cycle, step->groups * step->in) : 0;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, clouds_a_thread(pieces, threads))
    for (int64_t number = 0; number < pieces; number++) {
        Piece piece = piece_of(number, size);
        float *sums = work + number / a_share(pieces) * weights;
        if (number % a_share(pieces) == 0) memset(sums, 0, weights * sizeof(float));
        for (int64_t turn = 0; turn < piece.count; turn += few) {
            int64_t first = piece.first + turn, count = least(few, piece.count - turn);
            float *grad_next = grads + last;
            float *own = sums + weights;
            for (int64_t s = cycle->steps - 1; s >= 0; s--) {
                int64_t groups = cycle->step[s].groups, in = cycle->step[s].in, out = cycle->step[s].out;
                Lie x_at = features_at(!s, size, groups * in), s_at = in_panels(size, groups * in);
                Lie at = in_panels(size, groups * out);
                float *to = s ? grad_next - cycle->clouds * s_at.cloud : grad_x;
                const float *from = s ? nodes + (to - grads) : x, *on = s ? to : start;
                own -= groups * in * out;
                for (int64_t row = 0, some = s ? count : FEW; row < count; row += some)
                    for (int64_t g = 0; g < groups; g++) {
                        const float *of = grad_next + row_at(at, piece.cloud, first + row);
                        int64_t rows = least(some, count - row), its = row_at(x_at, piece.cloud, first + row);
                        if (to)
                            map_group((Map){of, at, g * out, out, cycle->step[s].weight + g * out * in, in,
                                            on ? on + row_at(s_at, piece.cloud, first + row) : NULL, s_at, NULL, to + its, x_at,
                                            g * in, READ | WRITTEN},
                                      rows);
                        outer_panels(from + its, x_at, g * in, in, of, at, g * out, out, rows, own + g * in * out, READ);
                    }
                grad_next = to;
            }
        }
    }
    add_up(work, shares_of(pieces), weights, grad_w);
}

/* What goes on to the only level's features, from panels into rows. */
static void to_rows(const Cycle *cycle, const float *panels, float *grad_x) {
    Lie at = in_panels(cycle->size, cycle->level->width), to = in_rows(cycle->size, cycle->level->width);
    for (int64_t cloud = 0; cloud < cycle->clouds; cloud++)
        for (int64_t c = 0; c < cycle->level->width; c += LANES)
            for (int64_t i = 0; i < cycle->size; i++)
                store(grad_x + row_at(to, cloud, i) + c, load(panels + row_at(at, cloud, i) + channel_at(at, c)));
}

/* grad: (clouds * size, channels) of the output; grad_x, which may be absent, and grad_params: as x and params; the rest as
 * mgic_cycle had and left it. Panels to work with: `grads` as large as nodes, `finest` as large as z's of the finest
 * level if nothing maps x to it, `between` for the two levels behind it. `small`: eight times as much as params has;
 * `work`: see Plan.scratch. */
void mgic_cycle_grad(const int64_t *plan, const float *reals, const float *grad, const float *x, const float *params,
                     const int32_t *col, float *nodes, float *z, uint8_t *best, float *change, float *moments, float *grad_x,
                     float *grad_params, float *grads, float *finest, float *between, float *small, float *work,
                     int64_t threads) {
    Cycle cycle = cycle_of(plan, reals, x, params, col, nodes, z, best, change, moments);
    int64_t unmapped = cycle.level->in_rows;
    float *passed = unmapped ? finest : grads, *total = passed, *grad_w = small, *to = grad_params;
    for (int64_t s = 0; s < cycle.steps; s++) small += cycle.step[s].groups * cycle.step[s].in * cycle.step[s].out;
    if (!unmapped) to += cycle.level->width * cycle.step->in;
    for (int64_t j = 0; j < cycle.levels; j++) {
        Level *level = &cycle.level[j];
        level->scale = scale_of(level->weight, level->var, level->eps, level->width, TAKE(small, level->width));
        if (level->half) correct(level, TAKE(small, level->width * (level->half + 1)));
    }
    float *sums = TAKE(small, 2 * cycle.level->width);
    begin_finest(&cycle, cycle.level, grad, total, sums, work, threads);
    for (int64_t j = 0; j < cycle.levels; j++) {
        const Level *level = &cycle.level[j];
        int64_t width = level->width, group = level->group;
        float *grad_conv = TAKE(to, width * 2 * group), *grad_weight = TAKE(to, width), *grad_bias = TAKE(to, width);
        for (int64_t c = 0; c < width; c++) { /* the sums become what the gradient of z needs of them */
            float rstd = 1 / sqrtf(level->var[c] + level->eps);
            grad_bias[c] = sums[c], grad_weight[c] = sums[width + c] * rstd;
            sums[c] /= (float)cycle.rows, sums[width + c] *= rstd * rstd / (float)cycle.rows;
        }
        Sums made = sums_in(small, level, 1);
        convolve_grad(&cycle, j, total, sums, sums + width, passed, made, small + sums_size(level), work, threads);
        for (int64_t c = 0; c < width; c++)
            for (int64_t i = 0; i < group; i++) {
                const float *grad_uv = made.conv + (c / group * group + i) * 2 * group + c % group;
                grad_conv[c * 2 * group + i] = grad_uv[0], grad_conv[c * 2 * group + group + i] = grad_uv[group] - grad_uv[0];
            }
        passed = j || !unmapped ? passed + panels_of(&cycle, width) : grads;
        if (!level->half) break;
        to += cycle.level[j + 1].width * group; /* the steps' weights come last */
        float *grad_up = TAKE(to, width * level->half), *grad_correction = TAKE(to, width);
        Back by = through(&cycle, level, made, grad_up, grad_correction, TAKE(to, width), small + sums_size(level));
        float *next = j % 2 ? between + panels_of(&cycle, cycle.level[1].width) : between;
        float *after = small + sums_size(level) + width * level->half + level->groups * level->half * (level->half + 1);
        change_grad(&cycle, j, total, by, next, after, work, threads);
        sums = memcpy(small, after, 2 * (level + 1)->width * sizeof(float));
        small += 2 * (level + 1)->width;
        total = next;
    }
    if (cycle.steps)
        go_up(&cycle, x, nodes, grads, unmapped ? finest : NULL, grad_x, grad_w, work, threads);
    else if (grad_x)
        to_rows(&cycle, finest, grad_x);
    for (int64_t s = 0; s < cycle.steps; s++) {
        const Step *step = &cycle.step[s];
        float *grad_step = grad_params + (step->weight - params);
        turned(grad_w, step->groups, step->out, step->in, grad_step);
        grad_w += step->groups * step->in * step->out;
    }
}
