/* A correction of the cycle: fine + norm(P (coarse - restricted)), strip by strip.
 *
 * The prolonged change is cheap to compute and large to keep, so every pass computes it anew from the coarse
 * features, and nothing of the fine width but the result is ever written. */
#include "linear.h"
#include "norm.h"

#define STRIP 128 /* rows, with sums of their own */
#define PIECE 1024 /* rows that share a part of the weight's gradient */
#define FEW 32     /* rows of a gradient at a time */

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

/* Sums over rows of some columns, a multiple of 8. */
static inline void column_sums(const float *x, int64_t rows, int64_t width, float *sum) {
    memset(sum, 0, width * sizeof(float));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < width; c++) sum[c] += x[i * width + c];
}

/* center: the mean of coarse - restricted. */
void mgic_correct_moments(const float *coarse, const float *restricted, const float *w, int64_t rows, int64_t groups,
                          int64_t in, int64_t out, float *mean, float *var, float *center, float *work,
                          int64_t threads) {
    Change change = {coarse, restricted, w, rows, groups, in, out};
    int64_t strips = (rows + STRIP - 1) / STRIP, width = groups * in;
    float *moments = shared(&change, work, threads), *sums = moments + strips * 2 * groups * out;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < rows; first += STRIP) {
        float *narrow = scratch(&change, work), *wide = narrow + STRIP * width;
        prolong(&change, first, narrow, wide);
        float *own = moments + first / STRIP * 2 * groups * out;
        moments_of(wide, groups * out, strip_of(&change, first), groups * out, own, own + groups * out);
        column_sums(narrow, strip_of(&change, first), width, sums + first / STRIP * width);
    }
    join_moments(moments, rows, STRIP, groups * out, mean, var);
    add_up(sums, strips, width, center);
    for (int64_t c = 0; c < width; c++) center[c] /= (float)rows;
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

/* Rows of coarse - restricted - center. */
static inline void subtract_center(const float *coarse, const float *restricted, const float *center, int64_t rows,
                                   int64_t width, float *out) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < width; c++) {
            int64_t at = i * width + c;
            out[at] = coarse[at] - restricted[at] - center[c];
        }
}

/* The gradient passes P and N, which are linear but for the statistics, so that all it needs of the fine width are sums
 * over rows: of itself, and of its products with the centred difference d = coarse - restricted - center.
 *
 * sum: (groups * out) of grad; by: (groups, in, out) of d^T grad; square: (groups, in, in) of d^T d. `work`: 32 rows of the
 * coarse width for each thread, then as much as these three for each 1,024 rows. */
void mgic_correct_sums(const float *grad, const float *coarse, const float *restricted, const float *center,
                       int64_t rows, int64_t groups, int64_t in, int64_t out, float *sum, float *by, float *square,
                       float *work, int64_t threads) {
    int64_t width = groups * in, fine = groups * out, pieces = (rows + PIECE - 1) / PIECE;
    float *sums = work + threads * FEW * width, *bys = sums + pieces * fine, *squares = bys + pieces * width * out;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t piece = 0; piece < pieces; piece++) {
        float *d = work + omp_get_thread_num() * FEW * width, own[fine];
        memset(sums + piece * fine, 0, fine * sizeof(float));
        memset(bys + piece * width * out, 0, width * out * sizeof(float));
        memset(squares + piece * width * in, 0, width * in * sizeof(float));
        for (int64_t first = piece * PIECE; first < rows && first < (piece + 1) * PIECE; first += FEW) {
            int64_t count = first + FEW < rows ? FEW : rows - first;
            subtract_center(coarse + first * width, restricted + first * width, center, count, width, d);
            column_sums(grad + first * fine, count, fine, own);
            for (int64_t c = 0; c < fine; c++) sums[piece * fine + c] += own[c];
            linear_grad(d, grad + first * fine, count, dense_rows(groups, in, out), bys + piece * width * out);
            linear_grad(d, d, count, dense_rows(groups, in, in), squares + piece * width * in);
        }
    }
    add_up(sums, pieces, fine, sum);
    add_up(bys, pieces, width * out, by);
    add_up(squares, pieces, width * in, square);
}

/* grad_coarse = grad back + d spread + shift, and its opposite; back: (groups, out, in); spread: (groups, in, in); shift:
 * (groups * in); `work`: 32 rows of the coarse width for each thread. */
void mgic_correct_grad(const float *grad, const float *coarse, const float *restricted, const float *center,
                       const float *back, const float *spread, const float *shift, int64_t rows, int64_t groups,
                       int64_t in, int64_t out, float *grad_coarse, float *grad_restricted, float *work,
                       int64_t threads) {
    int64_t width = groups * in, fine = groups * out;
    Layout on_top = dense_rows(groups, in, in);
    on_top.s_step = width;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < rows; first += FEW) {
        float *d = work + omp_get_thread_num() * FEW * width, *own = grad_coarse + first * width;
        int64_t count = first + FEW < rows ? FEW : rows - first;
        subtract_center(coarse + first * width, restricted + first * width, center, count, width, d);
        linear_rows(grad + first * fine, back, shift, count, dense_rows(groups, out, in), own);
        linear_rows(d, spread, own, count, on_top, own);
        for (int64_t n = 0; n < count * width; n++) grad_restricted[first * width + n] = -own[n];
    }
}
