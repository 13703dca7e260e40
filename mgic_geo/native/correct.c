/* A correction of the cycle: P (coarse - restricted) and its normalisation, strip by strip. */
#include "linear.h"
#include "norm.h"

#define PIECE 1024 /* rows with sums of their own */
#define STRIP_ROWS 128

static void differences(const float *a, const float *b, int64_t count, float *out) {
    for (int64_t at = 0; at < count; at++) out[at] = a[at] - b[at];
}

/* c (rows, groups * out) = (coarse - restricted) w, and its moments. w: (groups, in, out). `work`: 128 rows of the
 * coarse width for each thread, then 2 * groups * out for each 1,024 rows. */
void mgic_correct(const float *coarse, const float *restricted, const float *w, int64_t rows, int64_t groups,
                  int64_t in, int64_t out, float *c, float *mean, float *var, float *work, int64_t threads) {
    int64_t narrow = groups * in, wide = groups * out;
    float *moments = work + threads * STRIP_ROWS * narrow;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t piece = 0; piece < rows; piece += PIECE) {
        float *change = work + omp_get_thread_num() * STRIP_ROWS * narrow;
        int64_t last = piece + PIECE < rows ? piece + PIECE : rows;
        for (int64_t first = piece; first < last; first += STRIP_ROWS) {
            int64_t count = first + STRIP_ROWS < last ? STRIP_ROWS : last - first;
            differences(coarse + first * narrow, restricted + first * narrow, count * narrow, change);
            linear_rows(change, w, NULL, 0, count, groups, in, out, c + first * wide);
        }
        moments_of(c + piece * wide, last - piece, wide, moments + piece / PIECE * 2 * wide);
    }
    join_moments(moments, rows, PIECE, wide, mean, var);
}

/* grad: that of fine + norm(c). w: (groups, out, in). `work`: 128 rows of both widths for each thread, then as much as
 * grad_w, (groups, in, out), for each 1,024 rows. */
void mgic_correct_grad(const float *grad, const float *c, const float *coarse, const float *restricted, const float *w,
                       int64_t rows, int64_t groups, int64_t in, int64_t out, const float *mean, const float *scale,
                       const float *shift, const float *mean_h, const float *slope_h, float *grad_coarse,
                       float *grad_restricted, float *grad_w, float *work, int64_t threads) {
    int64_t narrow = groups * in, wide = groups * out, size = groups * in * out;
    Norm norm = {wide, mean, scale, shift, 1};
    float *shares = work + threads * STRIP_ROWS * (narrow + wide);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t piece = 0; piece < rows; piece += PIECE) {
        float *change = work + omp_get_thread_num() * STRIP_ROWS * (narrow + wide);
        float *of_c = change + STRIP_ROWS * narrow, *share = shares + piece / PIECE * size;
        int64_t last = piece + PIECE < rows ? piece + PIECE : rows;
        memset(share, 0, size * sizeof(float));
        for (int64_t first = piece; first < last; first += STRIP_ROWS) {
            int64_t count = first + STRIP_ROWS < last ? STRIP_ROWS : last - first;
            grad_rows(&norm, grad + first * wide, c + first * wide, mean_h, slope_h, count, of_c);
            differences(coarse + first * narrow, restricted + first * narrow, count * narrow, change);
            linear_grad(change, of_c, count, groups, in, out, share);
            linear_rows(of_c, w, NULL, 0, count, groups, out, in, grad_coarse + first * narrow);
            for (int64_t at = first * narrow; at < (first + count) * narrow; at++)
                grad_restricted[at] = -grad_coarse[at];
        }
    }
    add_up(shares, (rows + PIECE - 1) / PIECE, size, grad_w);
}
