/* Batch normalisation of rows of channels, with a leaky activation behind it and a residual beside it.
 *
 * out = x + act(scale (z - mean) + shift), or with x inside act, of (rows, channels) each; x may be absent. Rows are
 * worked off in pieces, whose statistics are joined in a fixed order: the result does not depend on the number of
 * threads. */
#include "norm.h"

#define PIECE 256

/* Mean and (biased) variance per channel. `work`: 2 * channels for each piece of 256 rows. */
void mgic_norm_moments(const float *z, int64_t rows, int64_t channels, float *mean, float *var, float *work,
                       int64_t threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < rows; first += PIECE) {
        float *own = work + first / PIECE * 2 * channels;
        moments_of(z + first * channels, channels, first + PIECE < rows ? PIECE : rows - first, channels, own,
                   own + channels);
    }
    join_moments(work, rows, PIECE, channels, mean, var);
}

void mgic_norm_apply(const float *z, const float *x, int64_t rows, int64_t channels, const float *mean,
                     const float *scale, const float *shift, float slope, float *out, int64_t threads) {
    Norm norm = {channels, mean, scale, shift, slope};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < rows; first += PIECE) {
        int64_t at = first * channels;
        apply_rows(&norm, z + at, x ? x + at : NULL, 0, first + PIECE < rows ? PIECE : rows - first, out + at);
    }
}

/* out = act(x + scale (z - mean) + shift). */
void mgic_norm_add(const float *z, const float *x, int64_t rows, int64_t channels, const float *mean,
                   const float *scale, const float *shift, float slope, float *out, int64_t threads) {
    Norm norm = {channels, mean, scale, shift, slope};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < rows; first += PIECE) {
        int64_t at = first * channels;
        apply_rows(&norm, z + at, x + at, 1, first + PIECE < rows ? PIECE : rows - first, out + at);
    }
}

/* As mgic_norm_sums, of mgic_norm_add; `hidden` takes the gradient of x. */
void mgic_norm_add_sums(const float *grad, const float *z, const float *out, int64_t rows, int64_t channels,
                        const float *mean, float slope, float *hidden, float *grad_shift, float *grad_weight, float *work,
                        int64_t threads) {
    Norm norm = {channels, mean, NULL, NULL, slope};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < rows; first += PIECE) {
        int64_t at = first * channels;
        sums_of(&norm, grad + at, z + at, out + at, hidden + at, first + PIECE < rows ? PIECE : rows - first,
                work + first / PIECE * 2 * channels);
    }
    join_sums(work, (rows + PIECE - 1) / PIECE, channels, grad_shift, grad_weight);
}

/* The gradients of shift and, but for 1 / sqrt(var + eps), of the weight. `work` as above. */
void mgic_norm_sums(const float *grad, const float *z, int64_t rows, int64_t channels, const float *mean,
                    const float *scale, const float *shift, float slope, float *grad_shift, float *grad_weight,
                    float *work, int64_t threads) {
    Norm norm = {channels, mean, scale, shift, slope};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < rows; first += PIECE)
        sums_of(&norm, grad + first * channels, z + first * channels, NULL, NULL,
                first + PIECE < rows ? PIECE : rows - first, work + first / PIECE * 2 * channels);
    join_sums(work, (rows + PIECE - 1) / PIECE, channels, grad_shift, grad_weight);
}

void mgic_norm_grad(const float *grad, const float *z, int64_t rows, int64_t channels, const float *mean,
                    const float *scale, const float *shift, float slope, const float *mean_h,
                    const float *slope_h, float *grad_z, int64_t threads) {
    Norm norm = {channels, mean, scale, shift, slope};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < rows; first += PIECE) {
        int64_t at = first * channels;
        grad_rows(&norm, grad + at, z + at, mean_h, slope_h, first + PIECE < rows ? PIECE : rows - first,
                  grad_z + at);
    }
}
