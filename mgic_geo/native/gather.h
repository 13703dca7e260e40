/* Maxima over neighbours, and their gradients, for a cloud and a few of its groups. */
#ifndef MGIC_GEO_GATHER_H
#define MGIC_GEO_GATHER_H

#include "edges.h"
#include "panels.h"

/* A task is a cloud and a few of its groups, whose u and v fit the second-level cache. Threads take tasks. */
typedef struct {
    Shape shape; /* of the task's groups */
    int64_t cloud, base, group, channel, input; /* its cloud, first node, group, channel and input */
    int64_t share, begins;                      /* where it adds its sums to, and whether it is the first to do so */
} Task;

#define CACHED (1 << 17) /* floats of u and v at once */
#define AHEAD 12         /* rows: they lie far apart, so that the processor does not see the next ones come */

static inline int64_t groups_a_task(const Shape *shape) {
    int64_t fitting = CACHED / (shape->size * 2 * shape->group);
    return fitting < 1 ? 1 : fitting < shape->groups ? fitting : shape->groups;
}

static inline int64_t tasks_a_cloud(const Shape *shape) {
    int64_t few = groups_a_task(shape);
    return (shape->groups + few - 1) / few;
}

static inline Task task_of(const Shape *shape, int64_t number) {
    int64_t few = groups_a_task(shape), first = number % tasks_a_cloud(shape) * few, cloud = number / tasks_a_cloud(shape);
    int64_t share = cloud / a_share(shape->clouds), begins = cloud % a_share(shape->clouds) == 0;
    Task task = {*shape, cloud, cloud * shape->size, first, first * shape->group, first * shape->in, share, begins};
    task.shape.groups = first + few < shape->groups ? few : shape->groups - first;
    return task;
}

static inline int64_t tasks_of(const Shape *shape) { return shape->clouds * tasks_a_cloud(shape); }

/* The same, those that add to the same sums in a row. In the last share clouds may be missing, whose numbers are too large. */
static inline Task shared_task_of(const Shape *shape, int64_t number) {
    int64_t few = a_share(shape->clouds), turn = number % few, parts = tasks_a_cloud(shape), share = number / few / parts;
    return task_of(shape, (share * few + turn) * parts + number / few % parts);
}

static inline int64_t shared_tasks_of(const Shape *shape) {
    return shares_of(shape->clouds) * a_share(shape->clouds) * tasks_a_cloud(shape);
}

/* How many in a row a thread takes, so that no two add to the same sums. */
static inline int64_t tasks_a_thread(const Shape *shape, int64_t threads) {
    return (shares_of(shape->clouds) * tasks_a_cloud(shape) + threads - 1) / threads * a_share(shape->clouds);
}

/* u and v of a task stand in panels, node after node. */
static inline Lie of_uv(const Shape *shape) { return in_panels(shape->size, 0); }

/* Floats for u and v of a task. */
static inline int64_t scratch_of(const Shape *shape) {
    return groups_a_task(shape) * 2 * shape->group * (shape->size + 1);
}

/* out = u_i + max_j v_j and the neighbour's rank for 16 channels or 32 of a cloud, mean and sum of squared deviations of
 * out. u[p] and v[p] are panels; rows of out and best lie `step` apart, their panels `panel`. A nan stays
 * if `sticky`, which costs a fifth of the time. */
INLINE void gather(const Shape *shape, const float *const *u, const float *const *v, const int32_t *col, Lie at,
                   float *out, uint8_t *best, float *average, float *squares, const int panels, const int sticky) {
    vfloat mean[2] = {{0}}, square[2] = {{0}};
    for (int64_t i = 0; i < shape->size; i++) {
        const int32_t *neighbor = col + i * shape->degree;
        vfloat most[2];
        vint rank[2] = {{0}};
        __builtin_prefetch(out + (i + AHEAD) * at.step, 1);
        __builtin_prefetch(best + (i + AHEAD) * at.step, 1);
        for (int p = 0; p < panels; p++) most[p] = load(v[p] + (int64_t)neighbor[0] * LANES);
        for (int64_t r = 1; r < shape->degree; r++)
            for (int p = 0; p < panels; p++) {
                vfloat x = load(v[p] + (int64_t)neighbor[r] * LANES);
                vmask more = sticky ? greater(x, most[p]) | not_a_number(x) : greater(x, most[p]);
                most[p] = choose(more, x, most[p]);
                rank[p] = choose_int(more, all_int((int32_t)r), rank[p]);
            }
        vfloat share = all(1.0f / (float)(i + 1));
        for (int p = 0; p < panels; p++) {
            vfloat value = load(u[p] + i * LANES) + most[p], off = value - mean[p]; /* Welford's update */
            store(out + i * at.step + p * at.panel, value);
            store_ranks(best + i * at.step + p * at.panel, rank[p]);
            mean[p] += off * share;
            square[p] += off * (value - mean[p]);
        }
    }
    for (int p = 0; p < panels; p++) {
        store(average + p * LANES, mean[p]);
        store(squares + p * LANES, square[p]);
    }
}

/* The same of 16 channels whose mean is not finite: the u of a node with features that are not is not, whatever its v. */
ONCE void gather_sticky(const Shape *shape, const float *u, const float *v, const int32_t *col, Lie at, float *out,
                        uint8_t *best, float *average, float *squares) {
    gather(shape, &u, &v, col, at, out, best, average, squares, 1, 1);
}

static inline int all_finite(const float *values) {
    float sum = 0;
    for (int64_t c = 0; c < LANES; c++) sum += values[c] * 0;
    return sum == 0;
}

/* The same for a task; out and best are its cloud's. */
static inline void gather_all(const Task *task, const float *uv, const int32_t *col, Lie at, float *out, uint8_t *best,
                              float *average, float *squares) {
    const Shape *shape = &task->shape;
    Lie uv_at = of_uv(shape);
    int64_t channels = shape->groups * shape->group, back = task->base * LANES, to_v = channel_at(uv_at, shape->group);
    for (int64_t c = 0; c < channels; c += 2 * LANES) {
        int both = c + LANES < channels;
        const float *first = uv + channel_at(uv_at, place(shape, c));
        const float *second = both ? uv + channel_at(uv_at, place(shape, c + LANES)) : first;
        const float *u[2] = {first, second}, *v[2] = {first + to_v - back, second + to_v - back};
        int64_t own = channel_at(at, task->channel + c);
        if (both)
            gather(shape, u, v, col, at, out + own, best + own, average + c, squares + c, 2, 0);
        else
            gather(shape, u, v, col, at, out + own, best + own, average + c, squares + c, 1, 0);
    }
    for (int64_t c = 0; c < channels; c += LANES)
        if (!all_finite(average + c)) {
            const float *u = uv + channel_at(uv_at, place(shape, c)), *v = u + to_v - back;
            int64_t own = channel_at(at, task->channel + c);
            gather_sticky(shape, u, v, col, at, out + own, best + own, average + c, squares + c);
        }
}

/* The gradients of u, there already, go to those v that had the maxima, for 16 channels or 32 of a cloud. */
INLINE void scatter(const Shape *shape, const float *const *u, float *const *v, const int32_t *col, Lie at,
                    const uint8_t *best, const int panels) {
    for (int64_t i = 0; i < shape->size; i++) {
        const int32_t *neighbor = col + i * shape->degree;
        vfloat g[2];
        vint rank[2];
        __builtin_prefetch(best + (i + AHEAD) * at.step);
        for (int p = 0; p < panels; p++) {
            g[p] = load(u[p] + i * LANES);
            rank[p] = ranks(best + i * at.step + p * at.panel);
        }
        for (int64_t r = 0; r < shape->degree; r++)
            for (int p = 0; p < panels; p++) {
                float *to = v[p] + (int64_t)neighbor[r] * LANES;
                store(to, add_where(same(rank[p], all_int((int32_t)r)), load(to), g[p]));
            }
    }
}

/* The same for a task; best is its cloud's. */
static inline void scatter_all(const Task *task, const uint8_t *best, Lie at, const int32_t *col, float *grad_uv) {
    const Shape *shape = &task->shape;
    Lie uv_at = of_uv(shape);
    int64_t channels = shape->groups * shape->group, back = task->base * LANES, to_v = channel_at(uv_at, shape->group);
    for (int64_t c = 0; c < channels; c += 2 * LANES) {
        int both = c + LANES < channels;
        float *first = grad_uv + channel_at(uv_at, place(shape, c));
        float *second = both ? grad_uv + channel_at(uv_at, place(shape, c + LANES)) : first;
        const float *u[2] = {first, second};
        float *v[2] = {first + to_v - back, second + to_v - back};
        int64_t own = channel_at(at, task->channel + c);
        if (both)
            scatter(shape, u, v, col, at, best + own, 2);
        else
            scatter(shape, u, v, col, at, best + own, 1);
    }
}

#endif
