/* Grouped 3×3 convolutions of channels-last images, stride and padding 1, of one image and for one thread.
 *
 * Outputs are computed 16 channels at a time: two groups of 8 or a part of a wider one. An input, spread over the lanes
 * of its group, meets the three outputs beside it while those of a stretch of a row stay in registers. */
#ifndef MGIC_GEO_CONV_H
#define MGIC_GEO_CONV_H

#include "kernels.h"

#if defined(__AVX512F__)
#define STRETCH 16 /* of pixels, whose sums take half of 32 registers */
#else
#define STRETCH 4
#endif

typedef struct {
    int64_t height, width, channels;
    int64_t group; /* channels of a group: 8, or a multiple of 16 */
} Image;

/* Where the inputs begin that 16 outputs read. */
static inline int64_t inputs_of(const Image *image, int64_t outputs) { return outputs / image->group * image->group; }

/* Channel i of two groups of 8, or of one wider, over the lanes that it meets. */
INLINE vfloat spread(const float *x, int64_t i, const int paired) {
    if (!paired) return all(x[i]);
#if defined(__AVX512F__)
    const vint first = {0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8};
    return (vfloat)_mm512_permutexvar_ps((__m512i)(first + all_int((int32_t)i)), (__m512)load(x));
#else
    float a = x[i], b = x[8 + i];
    return (vfloat){a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b};
#endif
}

/* 16 outputs of `count` pixels of a row from the three rows of inputs around it, of which those outside are NULL; of
 * the pixels before and behind, before and behind say whether they are inside. w: (3, 3, inputs, 16). */
INLINE void conv_stretch(const float *const *rows, const float *w, int64_t step, int64_t inputs, int before, int behind,
                         float *y, const int count, const int paired) {
    vfloat sum[STRETCH];
#pragma GCC unroll 16
    for (int p = 0; p < count; p++) sum[p] = (vfloat){0};
    for (int dy = 0; dy < 3; dy++) {
        const float *x = rows[dy], *left = w + dy * 3 * inputs * LANES, *centre = left + inputs * LANES;
        const float *right = centre + inputs * LANES;
        if (!x) continue;
        for (int64_t i = 0; i < inputs; i++) {
            vfloat of_left = load(left + i * LANES), own = load(centre + i * LANES), of_right = load(right + i * LANES);
            if (before) sum[0] += spread(x - step, i, paired) * of_left;
#pragma GCC unroll 16
            for (int p = 0; p < count; p++) {
                vfloat at = spread(x + p * step, i, paired);
                if (p + 1 < count) sum[p + 1] += at * of_left;
                sum[p] += at * own;
                if (p) sum[p - 1] += at * of_right;
            }
            if (behind) sum[count - 1] += spread(x + count * step, i, paired) * of_right;
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < count; p++) store(y + p * step, sum[p]);
}

INLINE void conv_rows(const float *x, const float *w, const Image *image, float *y, const int count, const int paired) {
    int64_t step = image->channels, line = image->width * step, inputs = image->group;
    for (int64_t c = 0; c < step; c += LANES) {
        const float *from = x + inputs_of(image, c), *own = w + c * 9 * inputs;
        for (int64_t row = 0; row < image->height; row++)
            for (int64_t p = 0; p < image->width; p += count) {
                if (p + count > image->width) p = image->width - count; /* some again */
                const float *at = from + row * line + p * step;
                const float *rows[3] = {row ? at - line : NULL, at, row + 1 < image->height ? at + line : NULL};
                conv_stretch(rows, own, step, inputs, p > 0, p + count < image->width, y + row * line + p * step + c,
                             count, paired);
            }
    }
}

/* y of x, both (height, width, channels), and w (channels / 16, 3, 3, group, 16). */
static inline void conv_image(const float *x, const float *w, const Image *image, float *y) {
    int count = image->width >= 16 && STRETCH >= 16 ? 16 : image->width >= 8 && STRETCH >= 8 ? 8 : image->width >= 4 ? 4 : 1;
#define CASE(number)                                                                                                  \
    if (count == number) {                                                                                            \
        if (image->group == 8) conv_rows(x, w, image, y, number, 1);                                                  \
        else conv_rows(x, w, image, y, number, 0);                                                                    \
    }
#if STRETCH >= 16
    CASE(16)
    CASE(8)
#endif
    CASE(4)
    CASE(1)
#undef CASE
}

#define INPUTS_A_PASS 4

INLINE void conv_grad_rows(const float *x, const float *grad, const Image *image, float *grad_w, const int paired) {
    int64_t step = image->channels, line = image->width * step, inputs = image->group;
    for (int64_t c = 0; c < step; c += LANES) {
        const float *from = x + inputs_of(image, c), *of = grad + c;
        for (int dy = 0; dy < 3; dy++)
            for (int64_t i = 0; i < inputs; i += INPUTS_A_PASS) {
                float *to = grad_w + (c * 9 + dy * 3 * LANES) * inputs + i * LANES;
                vfloat sum[3][INPUTS_A_PASS];
                for (int dx = 0; dx < 3; dx++)
                    for (int n = 0; n < INPUTS_A_PASS; n++) sum[dx][n] = load(to + (dx * inputs + n) * LANES);
                for (int64_t row = dy == 0; row < image->height - (dy == 2); row++) {
                    const float *at = from + (row + dy - 1) * line, *g = of + row * line;
                    vfloat last = {0}, own = load(g);
                    for (int64_t p = 0; p < image->width; p++, at += step, g += step) {
                        vfloat next = p + 1 < image->width ? load(g + step) : (vfloat){0};
#pragma GCC unroll 4
                        for (int n = 0; n < INPUTS_A_PASS; n++) {
                            vfloat input = spread(at, i + n, paired);
                            sum[0][n] += input * next;
                            sum[1][n] += input * own;
                            sum[2][n] += input * last;
                        }
                        last = own, own = next;
                    }
                }
                for (int dx = 0; dx < 3; dx++)
                    for (int n = 0; n < INPUTS_A_PASS; n++) store(to + (dx * inputs + n) * LANES, sum[dx][n]);
            }
    }
}

/* grad_w, as w, += what the gradient `grad` of an image's outputs gives it. */
static inline void conv_image_grad(const float *x, const float *grad, const Image *image, float *grad_w) {
    if (image->group == 8) conv_grad_rows(x, grad, image, grad_w, 1);
    else conv_grad_rows(x, grad, image, grad_w, 0);
}

#endif
