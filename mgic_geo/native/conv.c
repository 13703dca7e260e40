/* Convolutions of channels-last images with batch statistics, image by image while one is in the cache.
 *
 * Kernels come and go as (channels, 3, 3, group), one for each output; inside, 16 outputs lie side by side. */
#include "conv.h"
#include "linear.h"
#include "norm.h"

/* Whether a vector of 16 floats is one register, without which convolutions are slow here. */
#if defined(__AVX512F__)
const int32_t mgic_has_avx512 = 1;
#else
const int32_t mgic_has_avx512 = 0;
#endif

static inline int64_t pixels_of(const Image *image) { return image->height * image->width; }
static inline int64_t size_of(const Image *image) { return image->channels * 9 * image->group; }

/* (channels / 16, 3, 3, group, 16) from the kernels; turned round, those that bring gradients back to the inputs. */
static void pack(const float *kernels, const Image *image, int turned, float *w) {
    int64_t group = image->group;
    for (int64_t c = 0; c < image->channels; c++)
        for (int64_t tap = 0; tap < 9; tap++)
            for (int64_t i = 0; i < group; i++) {
                float *to = w + ((c / LANES * 9 + tap) * group + i) * LANES + c % LANES;
                if (turned)
                    *to = kernels[((c / group * group + i) * 9 + 8 - tap) * group + c % group];
                else
                    *to = kernels[(c * 9 + tap) * group + i];
            }
}

static void unpack(const float *w, const Image *image, float *kernels) {
    int64_t group = image->group;
    for (int64_t c = 0; c < image->channels; c++)
        for (int64_t tap = 0; tap < 9; tap++)
            for (int64_t i = 0; i < group; i++)
                kernels[(c * 9 + tap) * group + i] = w[((c / LANES * 9 + tap) * group + i) * LANES + c % LANES];
}

/* z (images, height, width, channels), and its mean and (biased) variance per channel. `work`: as much as the kernels,
 * then 2 * channels for each image. */
void mgic_conv_moments(const float *x, const float *kernels, int64_t images, int64_t height, int64_t width,
                       int64_t channels, int64_t group, float *z, float *mean, float *var, float *work,
                       int64_t threads) {
    Image image = {height, width, channels, group};
    int64_t pixels = pixels_of(&image);
    float *moments = work + size_of(&image);
    pack(kernels, &image, 0, work);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t n = 0; n < images; n++) {
        float *to = z + n * pixels * channels, *own = moments + n * 2 * channels;
        conv_image(x + n * pixels * channels, work, &image, to);
        moments_of(to, channels, pixels, channels, own, own + channels);
    }
    join_moments(moments, images * pixels, pixels, channels, mean, var);
}

/* Images that share a part of the kernels' gradient: 16 parts at most. */
static inline int64_t piece_of(int64_t images) { return (images + 15) / 16; }

/* Gradients of the inputs, if grad_x is there, and of the kernels, from that behind normalisation and activation; the
 * one between is never stored. mean_h and slope_h as for mgic_norm_grad. `work`: as much as the kernels, an image for
 * each thread, and as much as the kernels 16 times. */
void mgic_conv_norm_grad(const float *grad, const float *z, const float *x, const float *kernels, int64_t images,
                         int64_t height, int64_t width, int64_t channels, int64_t group, const float *mean,
                         const float *scale, const float *shift, float slope, const float *mean_h,
                         const float *slope_h, float *grad_x, float *grad_kernels, float *work, int64_t threads) {
    Image image = {height, width, channels, group};
    Norm norm = {channels, mean, scale, shift, slope};
    int64_t pixels = pixels_of(&image), values = pixels * channels, size = size_of(&image), piece = piece_of(images);
    float *scratch = work + size, *shares = scratch + threads * values;
    pack(kernels, &image, 1, work);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t first = 0; first < images; first += piece) {
        float *grad_z = scratch + omp_get_thread_num() * values, *share = shares + first / piece * size;
        memset(share, 0, size * sizeof(float));
        for (int64_t n = first; n < images && n < first + piece; n++) {
            int64_t at = n * values;
            grad_rows(&norm, grad + at, z + at, mean_h, slope_h, pixels, grad_z);
            conv_image_grad(x + at, grad_z, &image, share);
            if (grad_x) conv_image(grad_z, work, &image, grad_x + at);
        }
    }
    add_up(shares, (images + piece - 1) / piece, size, work);
    unpack(work, &image, grad_kernels);
}
