/* Pointwise linear maps within groups of channels: many rows, small matrices, for one thread.
 *
 * A tile of rows and outputs stays in registers while the inputs of the group go by. Rows come innermost but for a
 * few, so that memory is read as it lies, over all groups of a row. */
#ifndef MGIC_GEO_LINEAR_H
#define MGIC_GEO_LINEAR_H

#include "kernels.h"

typedef float vhalf __attribute__((vector_size(32), aligned(4)));

#if defined(__AVX512F__)
#define ROWS 8 /* of a tile, with outputs of two vectors: 16 of 32 registers */
#else
#define ROWS 4
#endif
#define ROWS_A_WRITE 16 /* of a weight's gradient */

/* y = x w + start for `rows` rows and `vectors` vectors of outputs; both numbers are known to the compiler. */
#define TILE(name, vector)                                                                                        \
    INLINE void name(const float *x, int64_t x_step, const float *w, int64_t w_step, const float *start,          \
                     int64_t s_step, float *y, int64_t y_step, int64_t in, const int rows, const int vectors) {   \
        const int lanes = sizeof(vector) / sizeof(float);                                                         \
        vector sum[ROWS][2];                                                                                      \
        for (int r = 0; r < rows; r++)                                                                            \
            for (int v = 0; v < vectors; v++)                                                                     \
                sum[r][v] = start ? *(const vector *)(start + r * s_step + v * lanes) : (vector){0};              \
        for (int64_t i = 0; i < in; i++)                                                                          \
            for (int r = 0; r < rows; r++)                                                                        \
                for (int v = 0; v < vectors; v++)                                                                 \
                    sum[r][v] += x[r * x_step + i] * *(const vector *)(w + i * w_step + v * lanes);               \
        for (int r = 0; r < rows; r++)                                                                            \
            for (int v = 0; v < vectors; v++) *(vector *)(y + r * y_step + v * lanes) = sum[r][v];                \
    }
TILE(tile, vfloat)
TILE(tile_half, vhalf)

/* Some of the groups of many rows: where each row begins in memory. */
typedef struct {
    int64_t groups, in, out;
    int64_t x_step, y_step, s_step;
} Layout;

INLINE void map_rows(const float *x, const float *w, const float *start, float *y, const Layout *at, const int rows) {
    for (int64_t g = 0; g < at->groups; g++) {
        int64_t in = at->in, out = at->out, o = 0;
        const float *from = x + g * in, *own = w + g * in * out, *add = start ? start + g * out : NULL;
        float *to = y + g * out;
        for (int r = 0; r < rows; r++) __builtin_prefetch(from + (r + 2 * ROWS) * at->x_step);
        for (; o + 2 * LANES <= out; o += 2 * LANES)
            tile(from, at->x_step, own + o, out, add ? add + o : NULL, at->s_step, to + o, at->y_step, in, rows, 2);
        for (; o + LANES <= out; o += LANES)
            tile(from, at->x_step, own + o, out, add ? add + o : NULL, at->s_step, to + o, at->y_step, in, rows, 1);
        for (; o < out; o += LANES / 2)
            tile_half(from, at->x_step, own + o, out, add ? add + o : NULL, at->s_step, to + o, at->y_step, in, rows, 1);
    }
}

/* y (rows, groups * out) of x (rows, groups * in) and w (groups, in, out), on top of `start`, if there is one, whose
 * rows lie s_step apart (0 for a bias); out is a multiple of 8. */
static inline void linear_rows(const float *x, const float *w, const float *start, int64_t rows, Layout at, float *y) {
    int64_t first = 0;
    for (; first + ROWS <= rows; first += ROWS)
        map_rows(x + first * at.x_step, w, start ? start + first * at.s_step : NULL, y + first * at.y_step, &at, ROWS);
    for (; first < rows; first++)
        map_rows(x + first * at.x_step, w, start ? start + first * at.s_step : NULL, y + first * at.y_step, &at, 1);
}

/* Rows that lie close together, and a bias or nothing to start with. */
static inline Layout dense_rows(int64_t groups, int64_t in, int64_t out) {
    return (Layout){groups, in, out, groups * in, groups * out, 0};
}

/* sum += x^T g over some rows, for 8 inputs and `vectors` vectors of outputs. */
#define OUTER(name, vector)                                                                                       \
    INLINE void name(const float *x, int64_t x_step, const float *g, int64_t g_step, int64_t rows, float *sum,    \
                     int64_t step, const int vectors) {                                                           \
        const int lanes = sizeof(vector) / sizeof(float);                                                         \
        vector own[8][2];                                                                                         \
        for (int i = 0; i < 8; i++)                                                                               \
            for (int v = 0; v < vectors; v++) own[i][v] = *(const vector *)(sum + i * step + v * lanes);          \
        for (int64_t r = 0; r < rows; r++)                                                                        \
            for (int v = 0; v < vectors; v++) {                                                                   \
                vector right = *(const vector *)(g + r * g_step + v * lanes);                                     \
                for (int i = 0; i < 8; i++) own[i][v] += x[r * x_step + i] * right;                               \
            }                                                                                                     \
        for (int i = 0; i < 8; i++)                                                                               \
            for (int v = 0; v < vectors; v++) *(vector *)(sum + i * step + v * lanes) = own[i][v];                \
    }
OUTER(outer, vfloat)
OUTER(outer_half, vhalf)

/* grad_w (groups, in, out) += x^T grad in each group, grad's rows being y_step apart; in and out are multiples of 8. */
static inline void linear_grad(const float *x, const float *grad, int64_t rows, Layout at, float *grad_w) {
    int64_t in = at.in, out = at.out;
    for (int64_t first = 0; first < rows; first += ROWS_A_WRITE) {
        int64_t count = first + ROWS_A_WRITE < rows ? ROWS_A_WRITE : rows - first;
        for (int64_t g = 0; g < at.groups; g++)
            for (int64_t i = 0; i < in; i += 8) {
                const float *left = x + first * at.x_step + g * in + i, *right = grad + first * at.y_step + g * out;
                float *sum = grad_w + (g * in + i) * out;
                int64_t o = 0;
                for (; o + 2 * LANES <= out; o += 2 * LANES)
                    outer(left, at.x_step, right + o, at.y_step, count, sum + o, out, 2);
                for (; o + LANES <= out; o += LANES)
                    outer(left, at.x_step, right + o, at.y_step, count, sum + o, out, 1);
                for (; o < out; o += LANES / 2)
                    outer_half(left, at.x_step, right + o, at.y_step, count, sum + o, out, 1);
            }
    }
}

/* The sum of `parts` arrays of `size`. */
static inline void add_up(const float *work, int64_t parts, int64_t size, float *out) {
    memset(out, 0, size * sizeof(float));
    for (int64_t part = 0; part < parts; part++)
        for (int64_t at = 0; at < size; at++) out[at] += work[part * size + at];
}

#endif
