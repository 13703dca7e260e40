/* Pointwise linear maps within groups of channels, with the rows shared out among threads. */
#include "linear.h"

#define PIECE 1024 /* rows whose share of a weight's gradient is summed apart */

/* start may be absent, a bias (start_step 0) or rows start_step apart. */
void mgic_linear(const float *x, const float *w, const float *start, int64_t start_step, int64_t rows, int64_t groups,
                 int64_t in, int64_t out, float *y, int64_t threads) {
    Layout at = dense_rows(groups, in, out);
    at.s_step = start_step;
    int64_t pieces = (rows + PIECE - 1) / PIECE;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t piece = 0; piece < pieces; piece++) {
        int64_t first = piece * PIECE, count = first + PIECE < rows ? PIECE : rows - first;
        linear_rows(x + first * groups * in, w, start ? start + first * start_step : NULL, count, at,
                    y + first * groups * out);
    }
}

/* `work`: as much as grad_w for each 1,024 rows. */
void mgic_linear_grad(const float *x, const float *grad, int64_t rows, int64_t groups, int64_t in, int64_t out,
                      float *grad_w, float *work, int64_t threads) {
    int64_t pieces = (rows + PIECE - 1) / PIECE, size = groups * in * out;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t piece = 0; piece < pieces; piece++) {
        int64_t first = piece * PIECE, count = first + PIECE < rows ? PIECE : rows - first;
        memset(work + piece * size, 0, size * sizeof(float));
        linear_grad(x + first * groups * in, grad + first * groups * out, count, dense_rows(groups, in, out),
                    work + piece * size);
    }
    add_up(work, pieces, size, grad_w);
}
