/* Scores of edges by head, and their softmax over the edges of each target. */
#include "messages.h"

/* The sums over heads of a vector of 16 products. */
INLINE void add_heads(vfloat x, int64_t width, float *to) {
    typedef float four __attribute__((vector_size(16), aligned(4)));
    float lane[LANES];
    store(lane, x);
    four low = *(four *)lane + *(four *)(lane + 4), high = *(four *)(lane + 8) + *(four *)(lane + 12);
    float first = low[0] + low[1] + low[2] + low[3], second = high[0] + high[1] + high[2] + high[3];
    to[0] += width < LANES ? first : first + second;
    if (width < LANES) to[1] += second;
}

/* The scores of the edges of one target; row by row, as they sum over channels. */
INLINE void scores_of(const Messages *m, const int kind, const int features, int64_t i, float *out) {
    int64_t channels = m->channels, heads = channels / m->width;
    for (int64_t p = m->ptr[i]; p < m->ptr[i + 1]; p++) {
        float *own = out + m->edge[p] * heads;
        memset(own, 0, heads * sizeof(float));
        for (int64_t c = 0; c < channels; c += LANES) {
            vfloat t0 = load(m->t[0] + i * channels + c);
            Parts parts = parts_of(m, kind, features, m->source[p], m->edge[p], c, t0, all(0));
            vfloat value = choose(greater(parts.a, all(0)), parts.a, parts.a * all(m->scale));
            add_heads(kind == DOT ? t0 * parts.a : load(m->t[1] + c) * value, m->width, own + c / m->width);
        }
    }
}

static void score_target(const Messages *m, int64_t i, float *out) {
    if (m->kind == LEAKY) OF_FEATURES(scores_of, LEAKY, i, out);
    if (m->kind == DOT) OF_FEATURES(scores_of, DOT, i, out);
}

/* out: (edges, heads). */
void mgic_scores(GRAPH, float *out, int64_t threads) {
    Messages m = FILLED;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t i = 0; i < targets; i++) score_target(&m, i, out);
}

/* out: (edges, heads) the softmax of x over the edges of each target. */
void mgic_edge_softmax(const float *x, int64_t targets, int64_t heads, const int64_t *ptr, const int64_t *edge,
                       float *out, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t i = 0; i < targets; i++)
        for (int64_t h = 0; h < heads; h += LANES) {
            int64_t first = ptr[i], last = ptr[i + 1];
            vfloat most = all(-INFINITY), sum = all(0);
            for (int64_t p = first; p < last; p++) most = larger(load(x + edge[p] * heads + h), most);
            for (int64_t p = first; p < last; p++) {
                vfloat e = exp_of(load(x + edge[p] * heads + h) - most);
                store(out + edge[p] * heads + h, e);
                sum += e;
            }
            for (int64_t p = first; p < last; p++) {
                float *own = out + edge[p] * heads + h;
                store(own, load(own) / sum);
            }
        }
}

/* grad_x = out (grad - sum out grad over the edges of the target). */
void mgic_edge_softmax_grad(const float *grad, const float *out, int64_t targets, int64_t heads, const int64_t *ptr,
                            const int64_t *edge, float *grad_x, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t i = 0; i < targets; i++)
        for (int64_t h = 0; h < heads; h += LANES) {
            vfloat sum = all(0);
            for (int64_t p = ptr[i]; p < ptr[i + 1]; p++) {
                int64_t at = edge[p] * heads + h;
                sum += load(out + at) * load(grad + at);
            }
            for (int64_t p = ptr[i]; p < ptr[i + 1]; p++) {
                int64_t at = edge[p] * heads + h;
                store(grad_x + at, load(out + at) * (load(grad + at) - sum));
            }
        }
}
