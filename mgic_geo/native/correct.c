/* A correction of the cycle: fine + norm(P (coarse - restricted)), strip by strip.
 *
 * The prolonged change is cheap to compute and large to keep, so every pass computes it anew from the coarse
 * features, and nothing of the fine width but the result is ever written. */
#include "linear.h"
#include "norm.h"

#define STRIP 128 /* rows, with sums of their own */
#define PIECE 1024 /* rows that share a part of the weight's gradient */

typedef struct {
    const float *coarse, *restricted, *w; /* w: (groups, in, out) */
    int64_t rows, groups, in, out;
} Change;

static inline int64_t strip_of(const Change *change, int64_t first) {
    return first + STRIP < change->rows ? STRIP : change->rows - first;
}

/* Rows of coarse - restricted, and of the prolonged change. */
static void prolong(const Change *change, int64_t first, float *narrow, float *wide) {
    int64_t width = change->groups * change->in, count = strip_of(change, first);
    const float *a = change->coarse + first * width, *b = change->restricted + first * width;
    for (int64_t at = 0; at < count * width; at++) narrow[at] = a[at] - b[at];
    linear_rows(narrow, change->w, NULL, count, dense_rows(change->groups, change->in, change->out), wide);
}

/* `work` of all but the last: 128 rows of both widths for each thread, then 2 * groups * out for each 128 rows. */
static inline float *scratch(const Change *change, float *work) {
    return work + omp_get_thread_num() * STRIP * change->groups * (change->in + change->out);
}
static inline float *shared(const Change *change, float *work, int64_t threads) {
    return work + threads * STRIP * change->groups * (change->in + change->out);
}

void mgic_correct_moments(const float *coarse, const float *restricted, const float *w, int64_t rows, int64_t groups,
                          int64_t in, int64_t out, float *mean, float *var, float *work, int64_t threads) {
    Change change = {coarse, restricted, w, rows, groups, in, out};
    float *moments = shared(&change, work, threads);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < rows; first += STRIP) {
        float *narrow = scratch(&change, work), *wide = narrow + STRIP * groups * in;
        prolong(&change, first, narrow, wide);
        float *own = moments + first / STRIP * 2 * groups * out;
        moments_of(wide, groups * out, strip_of(&change, first), groups * out, own, own + groups * out);
    }
    join_moments(moments, rows, STRIP, groups * out, mean, var);
}

void mgic_correct_apply(const float *coarse, const float *restricted, const float *w, const float *fine, int64_t rows,
                        int64_t groups, int64_t in, int64_t out, const float *mean, const float *scale,
                        const float *shift, float *result, float *work, int64_t threads) {
    Change change = {coarse, restricted, w, rows, groups, in, out};
    Norm norm = {groups * out, mean, scale, shift, 1};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < rows; first += STRIP) {
        float *narrow = scratch(&change, work), *wide = narrow + STRIP * groups * in;
        int64_t at = first * groups * out;
        prolong(&change, first, narrow, wide);
        apply_rows(&norm, wide, fine + at, 0, strip_of(&change, first), result + at);
    }
}

void mgic_correct_sums(const float *grad, const float *coarse, const float *restricted, const float *w, int64_t rows,
                       int64_t groups, int64_t in, int64_t out, const float *mean, const float *scale,
                       const float *shift, float *of_shift, float *of_weight, float *work, int64_t threads) {
    Change change = {coarse, restricted, w, rows, groups, in, out};
    Norm norm = {groups * out, mean, scale, shift, 1};
    float *sums = shared(&change, work, threads);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < rows; first += STRIP) {
        float *narrow = scratch(&change, work), *wide = narrow + STRIP * groups * in;
        prolong(&change, first, narrow, wide);
        sums_of(&norm, grad + first * groups * out, wide, NULL, NULL, strip_of(&change, first),
                sums + first / STRIP * 2 * groups * out);
    }
    join_sums(sums, (rows + STRIP - 1) / STRIP, groups * out, of_shift, of_weight);
}

/* turned: (groups, out, in); `work`: 128 rows of the coarse width and twice the fine one for each thread, then as much
 * as grad_w, (groups, in, out), for each 1,024 rows. */
void mgic_correct_grad(const float *grad, const float *coarse, const float *restricted, const float *w,
                       const float *turned, int64_t rows, int64_t groups, int64_t in, int64_t out, const float *mean,
                       const float *scale, const float *shift, const float *mean_h, const float *slope_h,
                       float *grad_coarse, float *grad_restricted, float *grad_w, float *work, int64_t threads) {
    Change change = {coarse, restricted, w, rows, groups, in, out};
    int64_t coarse_width = groups * in, fine_width = groups * out, size = groups * in * out;
    Norm norm = {fine_width, mean, scale, shift, 1};
    float *shares = work + threads * STRIP * (coarse_width + 2 * fine_width);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t piece = 0; piece < rows; piece += PIECE) {
        float *narrow = work + omp_get_thread_num() * STRIP * (coarse_width + 2 * fine_width);
        float *wide = narrow + STRIP * coarse_width, *of_wide = wide + STRIP * fine_width;
        float *share = shares + piece / PIECE * size;
        memset(share, 0, size * sizeof(float));
        for (int64_t first = piece; first < rows && first < piece + PIECE; first += STRIP) {
            int64_t count = strip_of(&change, first), at = first * coarse_width;
            prolong(&change, first, narrow, wide);
            grad_rows(&norm, grad + first * fine_width, wide, mean_h, slope_h, count, of_wide);
            linear_grad(narrow, of_wide, count, dense_rows(groups, in, out), share);
            linear_rows(of_wide, turned, NULL, count, dense_rows(groups, out, in), grad_coarse + at);
            for (int64_t n = 0; n < count * coarse_width; n++) grad_restricted[at + n] = -grad_coarse[at + n];
        }
    }
    add_up(shares, (rows + PIECE - 1) / PIECE, size, grad_w);
}
