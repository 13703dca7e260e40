/* Edge convolution on k-NN graphs, with nothing behind it or with a normalisation over nodes and a residual. */
#include "edges.h"

/* out = u_i + max_j v_j and the neighbour's rank for nodes first to last; `base` numbers the cloud's first node. */
static void gather(const Shape *shape, const float *uv, const int64_t *col, int64_t base, int64_t first,
                   int64_t last, float *out, uint8_t *best) {
    int64_t group = shape->group, channels = shape->groups * group;
    for (int64_t i = first; i < last; i++) {
        const int64_t *neighbor = col + i * shape->degree;
        for (int64_t c = 0; c < channels; c += LANES) {
            const float *u = uv + place(shape, c), *v = u + group - base * 2 * channels;
            vfloat most = load(v + neighbor[0] * 2 * channels);
            vint rank = {0};
            for (int64_t r = 1; r < shape->degree; r++) {
                vfloat x = load(v + neighbor[r] * 2 * channels);
                vint more = x > most;
                most = choose(more, x, most);
                rank = choose_int(more, all_int((int32_t)r), rank);
            }
            store(out + i * channels + c, load(u + i * 2 * channels) + most);
            store_ranks(best + i * channels + c, rank);
        }
    }
}

/* The gradient of uv, for some groups of one cloud. */
static void scatter(const Shape *shape, const float *grad, const uint8_t *best, const int64_t *col, int64_t base,
                    int64_t first_group, int64_t last_group, float *grad_uv) {
    int64_t group = shape->group, channels = shape->groups * group;
    int64_t begin = first_group * group, end = last_group * group;
    for (int64_t i = 0; i < shape->size; i++)
        for (int64_t c = begin; c < end; c += LANES) {
            float *u = grad_uv + i * 2 * channels + place(shape, c);
            store(u, load(grad + i * channels + c));
            store(u + group, all(0));
        }
    for (int64_t i = 0; i < shape->size; i++) {
        const int64_t *neighbor = col + i * shape->degree;
        for (int64_t c = begin; c < end; c += LANES) {
            vfloat g = load(grad + i * channels + c);
            vint rank = ranks(best + i * channels + c);
            float *v = grad_uv + place(shape, c) + group - base * 2 * channels;
            for (int64_t r = 0; r < shape->degree; r++) {
                float *to = v + neighbor[r] * 2 * channels;
                store(to, load(to) + choose(rank == all_int((int32_t)r), g, all(0)));
            }
        }
    }
}

/* x: (clouds * size, groups * in); w: (groups, in, 2 group); out, best: (clouds * size, groups * group); mean, var:
 * those of out over its rows, if not absent. `work`: a cloud's uv for each thread, then 2 * channels for each cloud.
 * Threads take clouds, or share each if there are too few. */
void mgic_edge_conv(const float *x, const float *w, const float *bias, const int64_t *col, int64_t clouds,
                    int64_t size, int64_t groups, int64_t in, int64_t group, int64_t degree, float *out, uint8_t *best,
                    float *mean, float *var, float *work, int64_t threads) {
    Shape shape = {clouds, size, groups, in, group, degree};
    int64_t wide = groups * in, channels = groups * group, together = clouds >= threads ? 1 : threads;
    float *moments = work + threads * size * 2 * channels;
#pragma omp parallel for num_threads(threads) if (together == 1 && threads > 1) schedule(static)
    for (int64_t cloud = 0; cloud < clouds; cloud++) {
        int64_t base = cloud * size, step = (size + together - 1) / together;
        float *uv = work + (together == 1 ? omp_get_thread_num() : 0) * size * 2 * channels;
#pragma omp parallel for num_threads(together) if (together > 1) schedule(static)
        for (int64_t first = 0; first < size; first += step)
            linear_rows(x + (base + first) * wide, w, bias, 0, first + step < size ? step : size - first, groups, in,
                        2 * group, uv + first * 2 * channels);
#pragma omp parallel for num_threads(together) if (together > 1) schedule(static)
        for (int64_t first = 0; first < size; first += step)
            gather(&shape, uv, col + base * degree, base, first, first + step < size ? first + step : size,
                   out + base * channels, best + base * channels);
        if (mean) moments_of(out + base * channels, size, channels, moments + cloud * 2 * channels);
    }
    if (mean) join_moments(moments, clouds * size, size, channels, mean, var);
}

/* grad: that of out; or, where scale is not absent, that of act(norm(out)) + x, whose second part is added to grad_x.
 * w: (groups, 2 group, in); grad_w: (groups, in, 2 group); `work`: three arrays of a cloud's channels for each thread,
 * then as much as grad_w for each cloud. */
void mgic_edge_conv_grad(const float *grad, const uint8_t *best, const float *x, const float *w, const int64_t *col,
                         int64_t clouds, int64_t size, int64_t groups, int64_t in, int64_t group, int64_t degree,
                         const float *z, const float *mean, const float *scale, const float *shift, float slope,
                         const float *mean_h, const float *slope_h, float *grad_x, float *grad_w, float *work,
                         int64_t threads) {
    Shape shape = {clouds, size, groups, in, group, degree};
    int64_t wide = groups * in, channels = groups * group, together = clouds >= threads ? 1 : threads;
    Norm norm = {channels, mean, scale, shift, slope};
    float *shares = work + threads * size * 3 * channels;
#pragma omp parallel for num_threads(threads) if (together == 1 && threads > 1) schedule(static)
    for (int64_t cloud = 0; cloud < clouds; cloud++) {
        int64_t base = cloud * size, step = (size + together - 1) / together;
        float *grad_uv = work + (together == 1 ? omp_get_thread_num() : 0) * size * 3 * channels;
        float *of_out = grad_uv + size * 2 * channels;
        const float *own = grad + base * channels;
        if (scale) {
#pragma omp parallel for num_threads(together) if (together > 1) schedule(static)
            for (int64_t first = 0; first < size; first += step)
                grad_rows(&norm, own + first * channels, z + (base + first) * channels, mean_h, slope_h,
                          first + step < size ? step : size - first, of_out + first * channels);
        }
#pragma omp parallel for num_threads(together) if (together > 1) schedule(static)
        for (int64_t part = 0; part < together; part++)
            scatter(&shape, scale ? of_out : own, best + base * channels, col + base * degree, base,
                    part * groups / together, (part + 1) * groups / together, grad_uv);
        if (grad_x) {
#pragma omp parallel for num_threads(together) if (together > 1) schedule(static)
            for (int64_t first = 0; first < size; first += step)
                linear_rows(grad_uv + first * 2 * channels, w, scale ? own + first * wide : NULL, wide,
                            first + step < size ? step : size - first, groups, 2 * group, in,
                            grad_x + (base + first) * wide);
        }
        float *share = shares + cloud * wide * 2 * group;
        memset(share, 0, wide * 2 * group * sizeof(float));
        linear_grad(x + base * wide, grad_uv, size, groups, in, 2 * group, share);
    }
    add_up(shares, clouds, wide * 2 * group, grad_w);
}
