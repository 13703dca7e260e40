/* Batch normalisation of rows of channels with a leaky activation behind it, for one thread. */
#ifndef MGIC_GEO_NORM_H
#define MGIC_GEO_NORM_H

#include "kernels.h"

/* act(scale (z - mean) + shift); `scale` holds weight / sqrt(var + eps). */
typedef struct {
    int64_t channels;
    const float *mean, *scale, *shift;
    float slope;
} Norm;

/* The activation; of -inf, too, it is 0 where the slope is. */
INLINE vfloat leaky(vfloat y, float slope) {
    vfloat least = all(slope ? -INFINITY : -FLT_MAX);
    return choose(greater(y, all(0)), y, choose(greater(least, y), least, y) * all(slope));
}

/* Joins to the moments of `before` rows those of `count` more, which stay in registers. */
INLINE void more_moments(const float *z, int64_t step, int64_t before, const int count, float *average,
                         float *squares) {
    vfloat x[8], sum = {0}, square = {0}, off;
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) sum += x[i] = load(z + i * step);
    sum *= all(1.0f / (float)count);
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) square += (x[i] - sum) * (x[i] - sum);
    float share = (float)count / (float)(before + count);
    off = sum - load(average);
    store(average, load(average) + off * all(share));
    store(squares, load(squares) + square + off * (off * all(share * (float)before)));
}

/* Mean and sum of squared deviations of some rows, `step` apart, per channel; eight rows at once, as memory lies. */
static inline void moments_of(const float *z, int64_t step, int64_t rows, int64_t channels, float *average,
                              float *squares) {
    memset(average, 0, channels * sizeof(float));
    memset(squares, 0, channels * sizeof(float));
    int64_t i = 0;
    for (; i + 8 <= rows; i += 8)
        for (int64_t c = 0; c < channels; c += LANES)
            more_moments(z + i * step + c, step, i, 8, average + c, squares + c);
    for (; i < rows; i++)
        for (int64_t c = 0; c < channels; c += LANES)
            more_moments(z + i * step + c, step, i, 1, average + c, squares + c);
}

/* Mean and (biased) variance of all rows from those of pieces of `piece` rows of each cloud of `size`, in their order. */
static inline void join_pieces(const float *work, int64_t clouds, int64_t size, int64_t piece, int64_t channels, float *mean,
                               float *var) {
    for (int64_t c = 0; c < channels; c++) {
        double average = 0, squares = 0, count = 0;
        const float *own = work;
        for (int64_t cloud = 0; cloud < clouds; cloud++)
            for (int64_t first = 0; first < size; first += piece, own += 2 * channels) {
                double its = (double)(first + piece < size ? piece : size - first);
                double off = own[c] - average, both = count + its;
                average += off * its / both;
                squares += own[channels + c] + off * off * count * its / both;
                count = both;
            }
        mean[c] = (float)average;
        var[c] = (float)(squares / count);
    }
}

/* The same of rows in one piece after the other. */
static inline void join_moments(const float *work, int64_t rows, int64_t piece, int64_t channels, float *mean,
                                float *var) {
    join_pieces(work, 1, rows, piece, channels, mean, var);
}

/* out = x + act(...), for which x may be absent, or with `inside` act(x + ...). */
INLINE void apply_rows(const Norm *norm, const float *z, const float *x, const int inside, int64_t rows, float *out) {
    int64_t channels = norm->channels;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t at = i * channels + c;
            vfloat y = (load(z + at) - load(norm->mean + c)) * load(norm->scale + c) + load(norm->shift + c);
            if (inside) y += load(x + at);
            y = leaky(y, norm->slope);
            store(out + at, x && !inside ? load(x + at) + y : y);
        }
}

/* As sums_of, of a few rows. */
INLINE void more_sums(const Norm *norm, const float *grad, const float *z, const float *out, float *hidden, int64_t c,
                      const int count, float *own) {
    vfloat sum = {0}, product = {0}, mean = load(norm->mean + c);
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) {
        int64_t at = i * norm->channels + c;
        vfloat off = load(z + at) - mean, g = load(grad + at), y;
        y = out ? load(out + at) : off * load(norm->scale + c) + load(norm->shift + c);
        g = choose(greater(y, all(0)), g, g * all(norm->slope));
        if (hidden) store(hidden + at, g);
        sum += g;
        product += g * off;
    }
    store(own + c, load(own + c) + sum);
    store(own + norm->channels + c, load(own + norm->channels + c) + product);
}

/* Sums over some rows, `own` of 2 * channels floats: of the gradient behind the activation, and of its product with
 * z - mean. `out` says where the activation rose, if something was added ahead of it; `hidden` keeps the gradient. */
INLINE void sums_of(const Norm *norm, const float *grad, const float *z, const float *out, float *hidden, int64_t rows,
                    float *own) {
    int64_t channels = norm->channels, i = 0;
    memset(own, 0, 2 * channels * sizeof(float));
    for (; i < rows; i += i + 8 <= rows ? 8 : 1) {
        int64_t at = i * channels;
        for (int64_t c = 0; c < channels; c += LANES)
            if (i + 8 <= rows)
                more_sums(norm, grad + at, z + at, out ? out + at : NULL, hidden ? hidden + at : NULL, c, 8, own);
            else
                more_sums(norm, grad + at, z + at, out ? out + at : NULL, hidden ? hidden + at : NULL, c, 1, own);
    }
}

/* Sums over all rows from those of `pieces` pieces, in their order. */
static inline void join_sums(const float *work, int64_t pieces, int64_t channels, float *grad_shift,
                             float *grad_weight) {
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, product = 0;
        for (int64_t piece = 0; piece < pieces; piece++) {
            sum += work[piece * 2 * channels + c];
            product += work[piece * 2 * channels + channels + c];
        }
        grad_shift[c] = (float)sum;
        grad_weight[c] = (float)product;
    }
}

/* grad_z = scale (h - mean_h - (z - mean) slope_h), h the gradient behind the activation, of 16 channels. */
static inline vfloat norm_grad(const Norm *norm, int64_t c, vfloat grad, vfloat z, const float *mean_h,
                               const float *slope_h) {
    vfloat off = z - load(norm->mean + c), factor = load(norm->scale + c);
    vmask above = greater(off * factor + load(norm->shift + c), all(0));
    return factor * (choose(above, grad, grad * all(norm->slope)) - load(mean_h + c) - off * load(slope_h + c));
}

/* The same of rows that lie close together. */
static inline void grad_rows(const Norm *norm, const float *grad, const float *z, const float *mean_h,
                             const float *slope_h, int64_t rows, float *grad_z) {
    int64_t channels = norm->channels;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t at = i * channels + c;
            store(grad_z + at, norm_grad(norm, c, load(grad + at), load(z + at), mean_h, slope_h));
        }
}

#endif
