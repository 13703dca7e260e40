/* Edge convolution on k-NN graphs, with nothing behind it or with a normalisation over nodes and a residual.
 *
 * A task is a cloud and a few of its groups, whose u and v fit the second-level cache. Threads take tasks. */
#include "edges.h"

#define CACHED (1 << 17) /* floats of u and v at once */
#define ROWS_A_TURN 32   /* of a gradient */
#define AHEAD 12         /* rows: they lie far apart, so that the processor does not see the next ones come */

typedef struct {
    Shape shape; /* of the task's groups */
    int64_t base, group, channel, input; /* its first node, group, channel and input */
} Task;

static inline int64_t groups_a_task(const Shape *shape) {
    int64_t fitting = CACHED / (shape->size * 2 * shape->group);
    return fitting < 1 ? 1 : fitting < shape->groups ? fitting : shape->groups;
}

static inline Task task_of(const Shape *shape, int64_t number) {
    int64_t few = groups_a_task(shape), parts = (shape->groups + few - 1) / few, first = number % parts * few;
    Task task = {*shape, number / parts * shape->size, first, first * shape->group, first * shape->in};
    task.shape.groups = first + few < shape->groups ? few : shape->groups - first;
    return task;
}

static inline int64_t tasks_of(const Shape *shape) {
    int64_t few = groups_a_task(shape);
    return shape->clouds * ((shape->groups + few - 1) / few);
}

/* u and v of a task stand in panels of 16 channels, node after node: for each group those of u, then those of v. So the
 * values that neighbours fetch lie close together. A node more keeps panels from falling on the same places of a cache. */
static inline int64_t panel_of(const Shape *shape) { return (shape->size + 1) * LANES; }
static inline int64_t to_v(const Shape *shape) { return shape->group / LANES * panel_of(shape); }
static inline int64_t to_u(const Shape *shape, int64_t c) { return place(shape, c) / LANES * panel_of(shape); }

/* Floats for u and v of a task. */
static inline int64_t scratch_of(const Shape *shape) {
    return groups_a_task(shape) * 2 * shape->group / LANES * panel_of(shape);
}

/* out = u_i + max_j v_j and the neighbour's rank for 16 channels or 32 of a cloud, mean and sum of squared deviations of
 * out. u[p] and v[p] are panels; rows of out and best lie `step` apart. */
INLINE void gather(const Shape *shape, const float *const *u, const float *const *v, const int32_t *col, int64_t step,
                   float *out, uint8_t *best, float *average, float *squares, const int panels) {
    vfloat mean[2] = {{0}}, square[2] = {{0}};
    for (int64_t i = 0; i < shape->size; i++) {
        const int32_t *neighbor = col + i * shape->degree;
        vfloat most[2];
        vint rank[2] = {{0}};
        __builtin_prefetch(out + (i + AHEAD) * step, 1);
        __builtin_prefetch(best + (i + AHEAD) * step, 1);
        for (int p = 0; p < panels; p++) most[p] = load(v[p] + (int64_t)neighbor[0] * LANES);
        for (int64_t r = 1; r < shape->degree; r++)
            for (int p = 0; p < panels; p++) {
                vfloat x = load(v[p] + (int64_t)neighbor[r] * LANES);
                vmask more = greater(x, most[p]);
                most[p] = choose(more, x, most[p]);
                rank[p] = choose_int(more, all_int((int32_t)r), rank[p]);
            }
        vfloat share = all(1.0f / (float)(i + 1));
        for (int p = 0; p < panels; p++) {
            vfloat value = load(u[p] + i * LANES) + most[p], off = value - mean[p]; /* Welford's update */
            store(out + i * step + p * LANES, value);
            store_ranks(best + i * step + p * LANES, rank[p]);
            mean[p] += off * share;
            square[p] += off * (value - mean[p]);
        }
    }
    for (int p = 0; p < panels; p++) {
        store(average + p * LANES, mean[p]);
        store(squares + p * LANES, square[p]);
    }
}

/* The same for a task. */
static void gather_all(const Task *task, const float *uv, const int32_t *col, int64_t step, float *out, uint8_t *best,
                       float *average, float *squares) {
    const Shape *shape = &task->shape;
    int64_t channels = shape->groups * shape->group, back = task->base * LANES;
    for (int64_t c = 0; c < channels; c += 2 * LANES) {
        int both = c + LANES < channels;
        const float *first = uv + to_u(shape, c), *second = both ? uv + to_u(shape, c + LANES) : first;
        const float *u[2] = {first, second}, *v[2] = {first + to_v(shape) - back, second + to_v(shape) - back};
        if (both)
            gather(shape, u, v, col, step, out + c, best + c, average + c, squares + c, 2);
        else
            gather(shape, u, v, col, step, out + c, best + c, average + c, squares + c, 1);
    }
}

/* The gradients of u, there already, go to those v that had the maxima, for 16 channels or 32 of a cloud. */
INLINE void scatter(const Shape *shape, const float *const *u, float *const *v, const int32_t *col, int64_t step,
                    const uint8_t *best, const int panels) {
    for (int64_t i = 0; i < shape->size; i++) {
        const int32_t *neighbor = col + i * shape->degree;
        vfloat g[2];
        vint rank[2];
        __builtin_prefetch(best + (i + AHEAD) * step);
        for (int p = 0; p < panels; p++) {
            g[p] = load(u[p] + i * LANES);
            rank[p] = ranks(best + i * step + p * LANES);
        }
        for (int64_t r = 0; r < shape->degree; r++)
            for (int p = 0; p < panels; p++) {
                float *to = v[p] + (int64_t)neighbor[r] * LANES;
                store(to, add_where(same(rank[p], all_int((int32_t)r)), load(to), g[p]));
            }
    }
}

/* The same for a task. */
static void scatter_all(const Task *task, const uint8_t *best, int64_t step, const int32_t *col, float *grad_uv) {
    const Shape *shape = &task->shape;
    int64_t channels = shape->groups * shape->group, back = task->base * LANES;
    for (int64_t c = 0; c < channels; c += 2 * LANES) {
        int both = c + LANES < channels;
        float *first = grad_uv + to_u(shape, c), *second = both ? grad_uv + to_u(shape, c + LANES) : first;
        const float *u[2] = {first, second};
        float *v[2] = {first + to_v(shape) - back, second + to_v(shape) - back};
        if (both)
            scatter(shape, u, v, col, step, best + c, 2);
        else
            scatter(shape, u, v, col, step, best + c, 1);
    }
}

/* The gradient of out into u, and zeros into v. Rows of grad lie `step` apart. */
static void begin(const Task *task, const float *grad, int64_t step, float *grad_uv) {
    const Shape *shape = &task->shape;
    int64_t panel = panel_of(shape), v = to_v(shape);
    for (int64_t i = 0; i < shape->size; i++) {
        float *u = grad_uv + i * LANES;
        for (int64_t g = 0, c = 0; g < shape->groups; g++, u += v)
            for (int64_t o = 0; o < shape->group; o += LANES, c += LANES, u += panel) {
                __builtin_prefetch(grad + (i + AHEAD) * step + c);
                store(u, load(grad + i * step + c));
                store(u + v, all(0));
            }
    }
}

/* The same where grad is that of act(norm(out)): it passes the normalisation, see grad_rows. Rows of z lie as those of
 * grad do. */
static void begin_norm(const Task *task, const Norm *norm, const float *grad, const float *z, int64_t step,
                       const float *mean_h, const float *slope_h, float *grad_uv) {
    const Shape *shape = &task->shape;
    int64_t panel = panel_of(shape), v = to_v(shape);
    for (int64_t i = 0; i < shape->size; i++) {
        float *u = grad_uv + i * LANES;
        for (int64_t g = 0, c = 0; g < shape->groups; g++, u += v)
            for (int64_t o = 0; o < shape->group; o += LANES, c += LANES, u += panel) {
                __builtin_prefetch(grad + (i + AHEAD) * step + c);
                __builtin_prefetch(z + (i + AHEAD) * step + c);
                store(u, norm_grad(norm, c, load(grad + i * step + c), load(z + i * step + c), mean_h, slope_h));
                store(u + v, all(0));
            }
    }
}

/* x: (clouds * size, groups * in); w: (groups, in, 2 group); out, best: (clouds * size, groups * group); mean, var:
 * those of out over its rows. `work`: scratch_of for each thread, then 2 * channels for each cloud. */
void mgic_edge_conv(const float *x, const float *w, const float *bias, const int32_t *col, int64_t clouds,
                    int64_t size, int64_t groups, int64_t in, int64_t group, int64_t degree, float *out, uint8_t *best,
                    float *mean, float *var, float *work, int64_t threads) {
    Shape shape = {clouds, size, groups, in, group, degree};
    int64_t wide = groups * in, channels = groups * group, tasks = tasks_of(&shape);
    float *moments = work + threads * scratch_of(&shape);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t number = 0; number < tasks; number++) {
        Task task = task_of(&shape, number);
        int64_t at = task.base * channels + task.channel;
        Layout rows = {task.shape.groups, in, 2 * group, wide, in, 0, LANES, 2 * to_v(&shape), panel_of(&shape), 0};
        float *uv = work + omp_get_thread_num() * scratch_of(&shape);
        linear_panels(x + task.base * wide + task.input, w + task.input * 2 * group,
                    bias ? bias + 2 * task.channel : NULL, size, rows, uv);
        float *average = moments + task.base / size * 2 * channels + task.channel;
        gather_all(&task, uv, col + task.base * degree, channels, out + at, best + at, average, average + channels);
    }
    join_moments(moments, clouds * size, size, channels, mean, var);
}

/* The gradients of x, on top of `start` if there is one, and of the weight, on top of what is there, from that of uv; the
 * former may be absent. A few rows at a time, so that they are still at hand for the second. */
static void map_grad(const Task *task, const float *x, const float *w, const float *grad_uv, const float *start,
                     int64_t wide, float *grad_x, float *grad_w) {
    const Shape *shape = &task->shape;
    int64_t in = shape->in, both = 2 * shape->group, panel = panel_of(shape), own = 2 * to_v(shape);
    int64_t few = in < PACKED ? PACKED / in : 1;
    float left[ROWS_A_TURN * PACKED];
    Layout rows = {shape->groups, both, in, LANES, own, panel, wide, in, LANES, wide};
    for (int64_t first = 0; first < shape->size; first += ROWS_A_TURN) {
        int64_t count = first + ROWS_A_TURN < shape->size ? ROWS_A_TURN : shape->size - first;
        const float *of = grad_uv + first * LANES;
        for (int64_t r = ROWS_A_TURN; start && r < 2 * ROWS_A_TURN; r++)
            for (int64_t c = 0; c < shape->groups * in; c += LANES) __builtin_prefetch(start + (first + r) * wide + c);
        if (grad_x) linear_panels(of, w, start ? start + first * wide : NULL, count, rows, grad_x + first * wide);
        for (int64_t g = 0; g < shape->groups; g += few) {
            int64_t n = g + few < shape->groups ? few : shape->groups - g, step = n * in;
            const float *from = x + first * wide + g * in;
            if (n * in <= PACKED)
                from = packed(from, wide, count, step, left);
            else
                step = wide;
            for (int64_t k = 0; k < n; k++)
                outer_group(from + k * in, step, of + (g + k) * own, LANES, panel, count, in, both,
                            grad_w + (g + k) * in * both);
        }
    }
}

/* grad: that of out; or, where scale is not absent, that of act(norm(out)) + x, whose second part is added to grad_x.
 * w: (groups, 2 group, in); grad_w: (groups, in, 2 group); `work`: scratch_of for each thread, then as much as grad_w for
 * each cloud. */
void mgic_edge_conv_grad(const float *grad, const uint8_t *best, const float *x, const float *w, const int32_t *col,
                         int64_t clouds, int64_t size, int64_t groups, int64_t in, int64_t group, int64_t degree,
                         const float *z, const float *mean, const float *scale, const float *shift, float slope,
                         const float *mean_h, const float *slope_h, float *grad_x, float *grad_w, float *work,
                         int64_t threads) {
    Shape shape = {clouds, size, groups, in, group, degree};
    int64_t wide = groups * in, channels = groups * group, tasks = tasks_of(&shape);
    float *shares = work + threads * scratch_of(&shape);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t number = 0; number < tasks; number++) {
        Task task = task_of(&shape, number);
        int64_t few = task.shape.groups, c = task.channel, at = task.base * channels + c;
        int64_t input = task.base * wide + task.input;
        float *grad_uv = work + omp_get_thread_num() * scratch_of(&shape);
        float *share = shares + (task.base / size * wide + task.input) * 2 * group;
        if (scale) {
            Norm norm = {few * group, mean + c, scale + c, shift + c, slope};
            begin_norm(&task, &norm, grad + at, z + at, channels, mean_h + c, slope_h + c, grad_uv);
        } else
            begin(&task, grad + at, channels, grad_uv);
        scatter_all(&task, best + at, channels, col + task.base * degree, grad_uv);
        memset(share, 0, few * in * 2 * group * sizeof(float));
        map_grad(&task, x + input, w + c * 2 * in, grad_uv, scale ? grad + at : NULL, wide, grad_x ? grad_x + input : NULL,
                 share);
    }
    add_up(shares, clouds, wide * 2 * group, grad_w);
}
