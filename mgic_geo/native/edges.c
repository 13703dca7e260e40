/* Edge convolution on k-NN graphs, of features in rows. */
#include "gather.h"

#define ROWS_A_TURN 32 /* of a gradient */

/* x: (clouds * size, groups * in); w: (groups, in, 2 group); bias: (groups * 2 group) or absent; out, best: (clouds * size,
 * groups * group). `work`: scratch_of for each thread, then 2 * channels for each cloud. */
void mgic_edge_conv(const float *x, const float *w, const float *bias, const int32_t *col, int64_t clouds,
                    int64_t size, int64_t groups, int64_t in, int64_t group, int64_t degree, float *out, uint8_t *best,
                    float *work, int64_t threads) {
    Shape shape = {clouds, size, groups, in, group, degree};
    Lie x_at = in_rows(size, groups * in), at = in_rows(size, groups * group), uv_at = of_uv(&shape);
    int64_t tasks = tasks_of(&shape), both = 2 * group;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t number = 0; number < tasks; number++) {
        Task task = task_of(&shape, number);
        float *uv = work + omp_get_thread_num() * scratch_of(&shape), unread[2][task.shape.groups * group];
        const float *own = x + task.cloud * x_at.cloud;
        for (int64_t first = 0; first < size; first += ROWS_A_TURN)
            for (int64_t g = 0; g < task.shape.groups; g++)
                map_group((Map){own + first * x_at.step, x_at, task.input + g * in, in, w + (task.group + g) * in * both, both,
                                NULL, x_at, bias ? bias + (task.group + g) * both : NULL, uv + first * LANES, uv_at, g * both,
                                READ},
                          first + ROWS_A_TURN < size ? ROWS_A_TURN : size - first);
        int64_t cloud = task.cloud * at.cloud;
        gather_all(&task, uv, col + task.base * degree, at, out + cloud, best + cloud, unread[0], unread[1]);
    }
}

/* The gradient of out into u, and zeros into v. */
static void begin(const Task *task, const float *grad, Lie at, float *grad_uv) {
    const Shape *shape = &task->shape;
    Lie uv_at = of_uv(shape);
    int64_t v = channel_at(uv_at, shape->group);
    for (int64_t i = 0; i < shape->size; i++)
        for (int64_t c = 0; c < shape->groups * shape->group; c += LANES) {
            const float *from = grad + i * at.step + channel_at(at, task->channel + c);
            float *u = grad_uv + i * LANES + channel_at(uv_at, place(shape, c));
            __builtin_prefetch(from + AHEAD * at.step);
            store(u, load(from));
            store(u + v, all(0));
        }
}

/* grad: that of out; w: (groups, 2 group, in); grad_x may be absent; grad_w: (groups, in, 2 group); `work`: scratch_of for
 * each thread, then as much as grad_w for each of shares_of(clouds). */
void mgic_edge_conv_grad(const float *grad, const uint8_t *best, const float *x, const float *w, const int32_t *col,
                         int64_t clouds, int64_t size, int64_t groups, int64_t in, int64_t group, int64_t degree,
                         float *grad_x, float *grad_w, float *work, int64_t threads) {
    Shape shape = {clouds, size, groups, in, group, degree};
    Lie x_at = in_rows(size, groups * in), at = in_rows(size, groups * group), uv_at = of_uv(&shape);
    int64_t tasks = shared_tasks_of(&shape), chunk = tasks_a_thread(&shape, threads), both = 2 * group;
    float *shares = work + threads * scratch_of(&shape);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, chunk)
    for (int64_t number = 0; number < tasks; number++) {
        Task task = shared_task_of(&shape, number);
        if (task.cloud >= clouds) continue;
        float *grad_uv = work + omp_get_thread_num() * scratch_of(&shape);
        float *share = shares + (task.share * groups + task.group) * in * both;
        begin(&task, grad + task.cloud * at.cloud, at, grad_uv);
        scatter_all(&task, best + task.cloud * at.cloud, at, col + task.base * degree, grad_uv);
        if (task.begins) memset(share, 0, task.shape.groups * in * both * sizeof(float));
        for (int64_t first = 0; first < size; first += ROWS_A_TURN)
            for (int64_t g = 0; g < task.shape.groups; g++) {
                int64_t count = first + ROWS_A_TURN < size ? ROWS_A_TURN : size - first, to = task.input + g * in;
                int64_t own = task.cloud * x_at.cloud + first * x_at.step;
                const float *of = grad_uv + first * LANES;
                if (grad_x)
                    map_group((Map){of, uv_at, g * both, both, w + (task.group + g) * both * in, in, NULL, x_at, NULL,
                                    grad_x + own, x_at, to, WRITTEN},
                              count);
                outer_panels(x + own, x_at, to, in, of, uv_at, g * both, both, count, share + g * in * both, READ);
            }
    }
    add_up(shares, shares_of(clouds), groups * in * both, grad_w);
}
