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
#define PACKED 64       /* columns that are brought together for that */
#define APART 256       /* floats between rows from which that pays */

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

/* Some of the groups of many rows, so far apart. */
typedef struct {
    int64_t groups, in, out, x_step, y_step, s_step;
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
        if (o < out)
            tile_half(from, at->x_step, own + o, out, add ? add + o : NULL, at->s_step, to + o, at->y_step, in, rows, 1);
    }
}

/* y (rows, groups * out) of x (rows, groups * in) and w (groups, in, out), on top of `start`, if there is one, whose
 * rows lie s_step apart (0 for a bias); out is a multiple of 8. */
static inline void linear_rows(const float *x, const float *w, const float *start, int64_t rows, Layout at, float *y) {
    int64_t i = 0;
    for (; i + ROWS <= rows; i += ROWS)
        map_rows(x + i * at.x_step, w, start ? start + i * at.s_step : NULL, y + i * at.y_step, &at, ROWS);
    for (; i < rows; i++)
        map_rows(x + i * at.x_step, w, start ? start + i * at.s_step : NULL, y + i * at.y_step, &at, 1);
}

/* Rows of x and y so far apart, and a bias or nothing to start with. */
static inline Layout spaced_rows(int64_t groups, int64_t in, int64_t out, int64_t x_step, int64_t y_step) {
    return (Layout){groups, in, out, x_step, y_step, 0};
}

/* The same where rows lie close together. */
static inline Layout dense_rows(int64_t groups, int64_t in, int64_t out) {
    return spaced_rows(groups, in, out, groups * in, groups * out);
}

/* sum += x^T g over some rows, for 8 inputs and `vectors` vectors of outputs. */
#define OUTER(name, vector)                                                                                       \
    INLINE void name(const float *x, int64_t x_step, const float *g, int64_t g_step, int64_t g_panel,             \
                     int64_t rows, float *sum, int64_t step, const int vectors) {                                 \
        const int lanes = sizeof(vector) / sizeof(float);                                                         \
        vector own[8][2];                                                                                         \
        for (int i = 0; i < 8; i++)                                                                               \
            for (int v = 0; v < vectors; v++) own[i][v] = *(const vector *)(sum + i * step + v * lanes);          \
        for (int64_t r = 0; r < rows; r++)                                                                        \
            for (int v = 0; v < vectors; v++) {                                                                   \
                vector right = *(const vector *)(g + r * g_step + v * g_panel);                                   \
                for (int i = 0; i < 8; i++) own[i][v] += x[r * x_step + i] * right;                               \
            }                                                                                                     \
        for (int i = 0; i < 8; i++)                                                                               \
            for (int v = 0; v < vectors; v++) *(vector *)(sum + i * step + v * lanes) = own[i][v];                \
    }
OUTER(outer, vfloat)
OUTER(outer_half, vhalf)

/* The same for all inputs and outputs of a group. */
static inline void outer_group(const float *x, int64_t x_step, const float *g, int64_t g_step, int64_t g_panel,
                               int64_t rows, int64_t in, int64_t out, float *sum) {
    for (int64_t i = 0; i < in; i += 8, x += 8, sum += 8 * out) {
        const float *right = g;
        int64_t o = 0;
        for (; o + 2 * LANES <= out; o += 2 * LANES, right += 2 * g_panel)
            outer(x, x_step, right, g_step, g_panel, rows, sum + o, out, 2);
        for (; o + LANES <= out; o += LANES, right += g_panel)
            outer(x, x_step, right, g_step, g_panel, rows, sum + o, out, 1);
        if (o < out) outer_half(x, x_step, right, g_step, g_panel, rows, sum + o, out, 1);
    }
}

/* Rows of `width` floats, a multiple of 8, brought together, and as many behind them fetched ahead: those of wide features
 * all fall on the same few places of the first-level cache, which holds hardly a dozen of them. */
static inline const float *packed(const float *from, int64_t step, int64_t rows, int64_t width, float *to) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < width; c += 8) {
            if (c % LANES == 0) __builtin_prefetch(from + (r + rows) * step + c);
            *(vhalf *)(to + r * width + c) = *(const vhalf *)(from + r * step + c);
        }
    return to;
}

/* grad_w (groups, in, out) += x^T grad in each group, both in rows; in and out are multiples of 8. */
static inline void linear_grad(const float *x, const float *grad, int64_t rows, Layout at, float *grad_w) {
    int64_t in = at.in, out = at.out, few = PACKED / (in < out ? out : in);
    float left[ROWS_A_WRITE * PACKED], right[ROWS_A_WRITE * PACKED];
    for (int64_t first = 0; first < rows; first += ROWS_A_WRITE) {
        int64_t count = first + ROWS_A_WRITE < rows ? ROWS_A_WRITE : rows - first;
        const float *from = x + first * at.x_step, *of = grad + first * at.y_step;
        if (at.x_step < APART && at.y_step < APART)
            for (int64_t g = 0; g < at.groups; g++)
                outer_group(from + g * in, at.x_step, of + g * out, at.y_step, LANES, count, in, out, grad_w + g * in * out);
        else if (few && at.groups > 1)
            for (int64_t g = 0; g < at.groups; g += few) {
                int64_t n = g + few < at.groups ? few : at.groups - g;
                const float *a = packed(from + g * in, at.x_step, count, n * in, left);
                const float *b = packed(of + g * out, at.y_step, count, n * out, right);
                for (int64_t own = 0; own < n; own++)
                    outer_group(a + own * in, n * in, b + own * out, n * out, LANES, count, in, out,
                                grad_w + (g + own) * in * out);
            }
        else
            for (int64_t i = 0; i < at.groups * in;) { /* some inputs of a group */
                int64_t g = i / in, rest = (g + 1) * in - i, n = rest < PACKED ? rest : PACKED;
                outer_group(packed(from + i, at.x_step, count, n, left), n, of + g * out, at.y_step, LANES, count, n, out,
                            grad_w + i * out);
                i += n;
            }
    }
}

/* Sums over rows are taken in at most SHARES parts, each of as many clouds or pieces of them: whatever the threads, so that
 * results do not depend on these, and few enough that many small clouds need no more memory for sums than for features. */
#define SHARES 32
static inline int64_t a_share(int64_t clouds) { return (clouds + SHARES - 1) / SHARES; }
static inline int64_t shares_of(int64_t clouds) { return (clouds + a_share(clouds) - 1) / a_share(clouds); }

/* How many clouds in a row a thread takes: whole shares, for no two threads may add to the same. */
static inline int64_t clouds_a_thread(int64_t clouds, int64_t threads) {
    return (shares_of(clouds) + threads - 1) / threads * a_share(clouds);
}

/* The sum of `parts` arrays of `size`. */
static inline void add_up(const float *work, int64_t parts, int64_t size, float *out) {
    memset(out, 0, size * sizeof(float));
    for (int64_t part = 0; part < parts; part++)
        for (int64_t at = 0; at < size; at++) out[at] += work[part * size + at];
}

#endif
