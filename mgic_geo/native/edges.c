/* Edge convolution on k-NN graphs, with nothing behind it or with a normalisation over nodes and a residual.
 *
 * A task is a cloud and a few of its groups, whose u and v fit the second-level cache. Threads take tasks. */
#include "edges.h"

#define CACHED (1 << 18) /* floats of u and v at once */

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

/* out = u_i + max_j v_j and the neighbour's rank for a task. Rows of out and best lie `step` apart. */
static void gather(const Task *task, const float *uv, const int32_t *col, int64_t step, float *out, uint8_t *best) {
    const Shape *shape = &task->shape;
    int64_t group = shape->group, channels = shape->groups * group;
    for (int64_t i = 0; i < shape->size; i++) {
        const int32_t *neighbor = col + i * shape->degree;
        for (int64_t c = 0; c < channels; c += LANES) {
            const float *u = uv + place(shape, c), *v = u + group - task->base * 2 * channels;
            vfloat most = load(v + neighbor[0] * 2 * channels);
            vint rank = {0};
            __builtin_prefetch(out + (i + 6) * step + c, 1);
            __builtin_prefetch(best + (i + 6) * step + c, 1);
            for (int64_t r = 1; r < shape->degree; r++) {
                vfloat x = load(v + neighbor[r] * 2 * channels);
                vmask more = greater(x, most);
                most = choose(more, x, most);
                rank = choose_int(more, all_int((int32_t)r), rank);
            }
            store(out + i * step + c, load(u + i * 2 * channels) + most);
            store_ranks(best + i * step + c, rank);
        }
    }
}

/* The gradient of uv for a task. Rows of grad lie g_step apart, those of best b_step. */
static void scatter(const Task *task, const float *grad, int64_t g_step, const uint8_t *best, int64_t b_step,
                    const int32_t *col, float *grad_uv) {
    const Shape *shape = &task->shape;
    int64_t group = shape->group, channels = shape->groups * group;
    for (int64_t i = 0; i < shape->size; i++)
        for (int64_t c = 0; c < channels; c += LANES) {
            float *u = grad_uv + i * 2 * channels + place(shape, c);
            store(u, load(grad + i * g_step + c));
            store(u + group, all(0));
        }
    for (int64_t i = 0; i < shape->size; i++) {
        const int32_t *neighbor = col + i * shape->degree;
        for (int64_t c = 0; c < channels; c += LANES) {
            vfloat g = load(grad + i * g_step + c);
            vint rank = ranks(best + i * b_step + c);
            float *v = grad_uv + place(shape, c) + group - task->base * 2 * channels;
            for (int64_t r = 0; r < shape->degree; r++) {
                float *to = v + neighbor[r] * 2 * channels;
                store(to, add_where(same(rank, all_int((int32_t)r)), load(to), g));
            }
        }
    }
}

/* Floats for u and v of a task, and as many again for half of them. */
static inline int64_t scratch_of(const Shape *shape) {
    return shape->size * 3 * groups_a_task(shape) * shape->group;
}

/* x: (clouds * size, groups * in); w: (groups, in, 2 group); out, best: (clouds * size, groups * group); mean, var:
 * those of out over its rows. `work`: 3 channels of a cloud for each thread, then 2 * channels for each cloud. */
void mgic_edge_conv(const float *x, const float *w, const float *bias, const int32_t *col, int64_t clouds,
                    int64_t size, int64_t groups, int64_t in, int64_t group, int64_t degree, float *out, uint8_t *best,
                    float *mean, float *var, float *work, int64_t threads) {
    Shape shape = {clouds, size, groups, in, group, degree};
    int64_t wide = groups * in, channels = groups * group, tasks = tasks_of(&shape);
    float *moments = work + threads * scratch_of(&shape);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t number = 0; number < tasks; number++) {
        Task task = task_of(&shape, number);
        int64_t own = task.shape.groups * group, at = task.base * channels + task.channel;
        Layout rows = {task.shape.groups, in, 2 * group, wide, 2 * own, 0};
        float *uv = work + omp_get_thread_num() * scratch_of(&shape);
        linear_rows(x + task.base * wide + task.input, w + task.input * 2 * group,
                    bias ? bias + 2 * task.channel : NULL, size, rows, uv);
        gather(&task, uv, col + task.base * degree, channels, out + at, best + at);
        float *average = moments + task.base / size * 2 * channels + task.channel;
        moments_of(out + at, channels, size, own, average, average + channels);
    }
    join_moments(moments, clouds * size, size, channels, mean, var);
}

/* grad: that of out; or, where scale is not absent, that of act(norm(out)) + x, whose second part is added to grad_x.
 * w: (groups, 2 group, in); grad_w: (groups, in, 2 group); `work`: 3 channels of a cloud for each thread, then as much
 * as grad_w for each cloud. */
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
        int64_t few = task.shape.groups, own = few * group, c = task.channel, at = task.base * channels + c;
        float *grad_uv = work + omp_get_thread_num() * scratch_of(&shape);
        float *of_out = grad_uv + size * 2 * own;
        float *share = shares + (task.base / size * wide + task.input) * 2 * group;
        if (scale) {
            Norm norm = {own, mean + c, scale + c, shift + c, slope};
            grad_rows(&norm, grad + at, z + at, channels, mean_h + c, slope_h + c, size, of_out);
        }
        scatter(&task, scale ? of_out : grad + at, scale ? own : channels, best + at, channels,
                col + task.base * degree, grad_uv);
        if (grad_x) {
            Layout rows = {few, 2 * group, in, 2 * own, wide, wide};
            linear_rows(grad_uv, w + c * 2 * in, scale ? grad + at : NULL, size, rows,
                        grad_x + task.base * wide + task.input);
        }
        Layout rows = {few, in, 2 * group, wide, 2 * own, 0};
        memset(share, 0, few * in * 2 * group * sizeof(float));
        linear_grad(x + task.base * wide + task.input, grad_uv, size, rows, share);
    }
    add_up(shares, clouds, wide * 2 * group, grad_w);
}
