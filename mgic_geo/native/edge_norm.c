/* Edge convolution normalised over edges: act(scale (u_i + max_j v_j - mean) + shift), mean and variance being those
 * of all edges' values u_i + v_j. */
#include "edges.h"

typedef struct {
    float *centred, *uv, *grad_uv, *grad_out; /* of a cloud */
} Scratch;

static inline int64_t scratch_size(const Shape *shape) {
    return shape->size * (shape->groups * shape->in + 5 * shape->groups * shape->group);
}

static inline Scratch scratch_of(const Shape *shape, float *work, int64_t thread) {
    float *own = work + thread * scratch_size(shape);
    int64_t wide = shape->size * shape->groups * shape->in, channels = shape->size * shape->groups * shape->group;
    return (Scratch){own, own + wide, own + wide + 2 * channels, own + wide + 4 * channels};
}

/* Points less their center, since u and v nearly cancel where points lie far from the origin. */
static void subtract_center(const Shape *shape, const float *x, const float *center, float *out) {
    int64_t wide = shape->groups * shape->in;
    for (int64_t i = 0; i < shape->size; i++)
        for (int64_t c = 0; c < wide; c++) out[i * wide + c] = x[i * wide + c] - center[c];
}

static inline vfloat sum_of(const Shape *shape, const float *v, const int32_t *neighbor) {
    vfloat sum = {0};
    for (int64_t r = 0; r < shape->degree; r++) sum += load(v + neighbor[r] * 2 * shape->groups * shape->group);
    return sum;
}

/* Maxima and ranks of all nodes of a cloud, and mean and squares of its edges' deviations, summed up over nodes of their
 * means over a node's edges. */
static void gather(const Shape *shape, const float *uv, const int32_t *col, int64_t base, float *out, uint8_t *best,
                   float *moments) {
    int64_t group = shape->group, channels = shape->groups * group;
    float share = 1 / (float)shape->degree, *average = moments, *squares = moments + channels;
    memset(moments, 0, 2 * channels * sizeof(float));
    for (int64_t i = 0; i < shape->size; i++) {
        const int32_t *neighbor = col + i * shape->degree;
        for (int64_t c = 0; c < channels; c += LANES) {
            const float *u = uv + place(shape, c), *v = u + group - base * 2 * channels;
            vfloat most = load(v + neighbor[0] * 2 * channels), sum = most, square = most * most;
            vint rank = {0};
            for (int64_t r = 1; r < shape->degree; r++) {
                vfloat x = load(v + neighbor[r] * 2 * channels);
                vmask more = greater(x, most);
                most = choose(more, x, most);
                rank = choose_int(more, all_int((int32_t)r), rank);
                sum += x;
                square += x * x;
            }
            vfloat own = load(u + i * 2 * channels), within = square - sum * sum * all(share);
            vfloat value = own + sum * all(share), before = load(average + c), off = value - before;
            vfloat after = before + off * all(1 / (float)(i + 1));
            store(average + c, after);
            within = choose(greater(within, all(0)), within, all(0)) * all(share);
            store(squares + c, load(squares + c) + off * (value - after) + within);
            store(out + i * channels + c, own + most);
            store_ranks(best + i * channels + c, rank);
        }
    }
}

/* x: (clouds * size, groups * in); w: (groups, in, 2 group); center: (groups * in); out, best: (clouds * size,
 * groups * group); `work`: scratch_size for each thread, then 2 * channels for each cloud. */
void mgic_edge_norm(const float *x, const float *center, const float *w, const int32_t *col, int64_t clouds,
                    int64_t size, int64_t groups, int64_t in, int64_t group, int64_t degree, float *out, uint8_t *best,
                    float *mean, float *var, float *work, int64_t threads) {
    Shape shape = {clouds, size, groups, in, group, degree};
    int64_t wide = groups * in, channels = groups * group;
    float *moments = work + threads * scratch_size(&shape);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t cloud = 0; cloud < clouds; cloud++) {
        int64_t base = cloud * size;
        Scratch own = scratch_of(&shape, work, omp_get_thread_num());
        subtract_center(&shape, x + base * wide, center, own.centred);
        linear_rows(own.centred, w, NULL, size, dense_rows(groups, in, 2 * group), own.uv);
        gather(&shape, own.uv, col + base * degree, base, out + base * channels, best + base * channels,
               moments + cloud * 2 * channels);
    }
    join_moments(moments, clouds * size, size, channels, mean, var);
}

/* The gradient of the maxima themselves: scale h, h the gradient behind the activation. */
static void maxima_grad(const Norm *norm, const float *grad, const float *z, int64_t rows, float *out) {
    int64_t channels = norm->channels;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t at = i * channels + c;
            vfloat g = load(grad + at), factor = load(norm->scale + c);
            vmask above = greater((load(z + at) - load(norm->mean + c)) * factor + load(norm->shift + c), all(0));
            store(out + at, factor * choose(above, g, g * all(norm->slope)));
        }
}

/* The gradient of uv for one cloud, from that of the maxima, `grad_out`, and from what every
 * edge's value contributes to mean and variance: constant + slope (value - mean). */
static void scatter(const Shape *shape, const float *grad_out, const float *uv, const uint8_t *best, const int32_t *col,
                    const float *out_degree, int64_t base, const float *mean, const float *constant, const float *slope,
                    float *grad_uv) {
    int64_t group = shape->group, channels = shape->groups * group;
    for (int64_t i = 0; i < shape->size; i++)
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t at = i * 2 * channels + place(shape, c) + group;
            vfloat every = load(constant + c) + load(slope + c) * (load(uv + at) - load(mean + c));
            store(grad_uv + at, every * all(out_degree[i]));
        }
    for (int64_t i = 0; i < shape->size; i++) {
        const int32_t *neighbor = col + i * shape->degree;
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t at = i * 2 * channels + place(shape, c);
            const float *v = uv + place(shape, c) + group - base * 2 * channels;
            float *grad_v = grad_uv + place(shape, c) + group - base * 2 * channels;
            vfloat g = load(grad_out + i * channels + c), own = load(uv + at), factor = load(slope + c);
            vfloat every = factor * own, degree = all((float)shape->degree);
            vint rank = ranks(best + i * channels + c);
            for (int64_t r = 0; r < shape->degree; r++) {
                float *to = grad_v + neighbor[r] * 2 * channels;
                store(to, add_where(same(rank, all_int((int32_t)r)), load(to) + every, g));
            }
            vfloat edges = degree * (own - load(mean + c)) + sum_of(shape, v, neighbor);
            store(grad_uv + at, g + degree * load(constant + c) + factor * edges);
        }
    }
}

/* grad: that behind the activation's output; z: (nodes, channels) as mgic_edge_norm gave it; scale, shift, mean and
 * slope_below as for a normalisation of rows; constant, slope: (channels), see above; turned: (groups, 2 group, in);
 * grad_x may be absent; grad_w: (groups, in, 2 group). `work`: scratch_size for each thread, then as much as grad_w for
 * each of shares_of(clouds). */
void mgic_edge_norm_grad(const float *grad, const float *z, const uint8_t *best, const float *x, const float *center,
                         const float *w, const float *turned, const int32_t *col, const float *out_degree,
                         int64_t clouds, int64_t size, int64_t groups, int64_t in, int64_t group, int64_t degree,
                         const float *mean, const float *scale, const float *shift, float slope_below,
                         const float *constant, const float *slope, float *grad_x, float *grad_w, float *work,
                         int64_t threads) {
    Shape shape = {clouds, size, groups, in, group, degree};
    Norm norm = {groups * group, mean, scale, shift, slope_below};
    int64_t wide = groups * in, channels = groups * group;
    float *shares = work + threads * scratch_size(&shape);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, clouds_a_thread(clouds, threads))
    for (int64_t cloud = 0; cloud < clouds; cloud++) {
        int64_t base = cloud * size;
        Scratch own = scratch_of(&shape, work, omp_get_thread_num());
        float *share = shares + cloud / a_share(clouds) * wide * 2 * group;
        subtract_center(&shape, x + base * wide, center, own.centred);
        linear_rows(own.centred, w, NULL, size, dense_rows(groups, in, 2 * group), own.uv);
        maxima_grad(&norm, grad + base * channels, z + base * channels, size, own.grad_out);
        scatter(&shape, own.grad_out, own.uv, best + base * channels, col + base * degree, out_degree + base, base, mean,
                constant, slope, own.grad_uv);
        if (grad_x)
            linear_rows(own.grad_uv, turned, NULL, size, dense_rows(groups, 2 * group, in), grad_x + base * wide);
        if (cloud % a_share(clouds) == 0) memset(share, 0, wide * 2 * group * sizeof(float));
        linear_grad(own.centred, own.grad_uv, size, dense_rows(groups, in, 2 * group), share);
    }
    add_up(shares, shares_of(clouds), wide * 2 * group, grad_w);
}
