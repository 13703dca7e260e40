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

/* Mean and sum of squared deviations of some rows, `step` apart, per channel. */
static inline void moments_of(const float *z, int64_t step, int64_t rows, int64_t channels, float *average,
                              float *squares) {
    /* Welford's update, which subtracts nothing large; row after row, as memory lies. */
    memset(average, 0, channels * sizeof(float));
    memset(squares, 0, channels * sizeof(float));
    for (int64_t i = 0; i < rows; i++) {
        vfloat share = all(1.0f / (float)(i + 1));
        for (int64_t c = 0; c < channels; c += LANES) {
            vfloat x = load(z + i * step + c), before = load(average + c), off = x - before;
            vfloat after = before + off * share;
            store(average + c, after);
            store(squares + c, load(squares + c) + off * (x - after));
        }
    }
}

/* Mean and (biased) variance of all rows from those of pieces of `piece` rows, in their order. */
static inline void join_moments(const float *work, int64_t rows, int64_t piece, int64_t channels, float *mean,
                                float *var) {
    for (int64_t c = 0; c < channels; c++) {
        double average = 0, squares = 0, count = 0;
        for (int64_t first = 0; first < rows; first += piece) {
            const float *own = work + first / piece * 2 * channels;
            double its = (double)(first + piece < rows ? piece : rows - first);
            double off = own[c] - average, both = count + its;
            average += off * its / both;
            squares += own[channels + c] + off * off * count * its / both;
            count = both;
        }
        mean[c] = (float)average;
        var[c] = (float)(squares / count);
    }
}

/* out = x + act(...); x may be absent. */
static inline void apply_rows(const Norm *norm, const float *z, const float *x, int64_t rows, float *out) {
    int64_t channels = norm->channels;
    vfloat slope = all(norm->slope);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t at = i * channels + c;
            vfloat y = (load(z + at) - load(norm->mean + c)) * load(norm->scale + c) + load(norm->shift + c);
            y = choose(greater(y, all(0)), y, y * slope);
            store(out + at, x ? load(x + at) + y : y);
        }
}

/* Sums over some rows, `own` of 2 * channels floats: of the gradient behind the activation, and of its product with
 * z - mean. */
static inline void sums_of(const Norm *norm, const float *grad, const float *z, int64_t rows, float *own) {
    int64_t channels = norm->channels;
    float *sum = own, *product = own + channels;
    memset(own, 0, 2 * channels * sizeof(float));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t at = i * channels + c;
            vfloat off = load(z + at) - load(norm->mean + c), g = load(grad + at);
            g = choose(greater(off * load(norm->scale + c) + load(norm->shift + c), all(0)), g, g * all(norm->slope));
            store(sum + c, load(sum + c) + g);
            store(product + c, load(product + c) + g * off);
        }
}

/* Sums over all rows from those of `pieces` pieces, in their order. */
static inline void join_sums(const float *work, int64_t pieces, int64_t channels, float *of_shift,
                             float *of_weight) {
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, product = 0;
        for (int64_t piece = 0; piece < pieces; piece++) {
            sum += work[piece * 2 * channels + c];
            product += work[piece * 2 * channels + channels + c];
        }
        of_shift[c] = (float)sum;
        of_weight[c] = (float)product;
    }
}

/* grad_z = scale (h - mean_h - (z - mean) slope_h), h the gradient behind the activation. Rows of grad and z lie `step`
 * apart, those of grad_z close together. */
static inline void grad_rows(const Norm *norm, const float *grad, const float *z, int64_t step, const float *mean_h,
                             const float *slope_h, int64_t rows, float *grad_z) {
    int64_t channels = norm->channels;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t at = i * step + c;
            vfloat off = load(z + at) - load(norm->mean + c), g = load(grad + at), factor = load(norm->scale + c);
            g = choose(greater(off * factor + load(norm->shift + c), all(0)), g, g * all(norm->slope));
            store(grad_z + i * channels + c, factor * (g - load(mean_h + c) - off * load(slope_h + c)));
        }
}

#endif
