/* Networks of two grouped maps on every edge of any graph, and the maximum or the sum of what they give at each target;
 * and the gradient, for which the values are made again.
 *
 * Some edges at a time stay in the cache. Threads share the groups, so that they never write to the same place. */
#include "linear.h"
#include "messages.h"

#define EDGES 32 /* at once */

typedef struct {
    int64_t targets, sources, groups, hidden, out, features; /* hidden, out: channels of a group */
    const int64_t *ptr, *source, *edge;                      /* by target */
    const float *t, *s, *attr, *w, *inner, *bias;            /* inner: (groups, hidden, out), the second map */
} Network;

/* The groups of a thread. */
typedef struct {
    int64_t groups, hidden, out, group; /* how many there are, and channels of all of them; the first */
} Share;

static inline Share share_of(const Network *m, int64_t thread, int64_t threads) {
    int64_t first = m->groups * thread / threads, count = m->groups * (thread + 1) / threads - first;
    return (Share){count, count * m->hidden, count * m->out, first};
}

/* Hidden values and outputs of some edges. Never inlined: those made again must be the same to the last bit, so that
 * the edges which attain a maximum are known by it. */
static __attribute__((noinline)) void values_of(const Network *m, const Share *own, const int64_t *target, int64_t p,
                                                int64_t edges, float *h, float *y) {
    int64_t channels = m->groups * m->hidden, first = own->group * m->hidden;
    for (int64_t r = 0; r < edges; r++) {
        const float *t = m->t ? m->t + target[r] * channels + first : NULL;
        const float *s = m->s + m->source[p + r] * channels + first, *w = m->w + first;
        const float *attr = m->attr + m->edge[p + r] * m->features;
        if (p + r + 4 < m->ptr[m->targets]) __builtin_prefetch(m->s + m->source[p + r + 4] * channels + first);
        for (int64_t c = 0; c < own->hidden; c += LANES) {
            vfloat x = load(s + c);
            if (t) x += load(t + c);
            for (int64_t d = 0; d < m->features; d++) x += load(w + d * channels + c) * attr[d];
            store(h + r * own->hidden + c, relu_of(x));
        }
    }
    Layout rows = {own->groups, m->hidden, m->out, own->hidden, own->out, 0};
    int64_t at = own->group * m->out;
    linear_rows(h, m->inner + at * m->hidden, m->bias ? m->bias + at : NULL, edges, rows, y);
}

/* The targets of some edges, from one at or before the first one's. Returns that of the last one. */
static inline int64_t targets_of(const Network *m, int64_t i, int64_t p, int64_t edges, int64_t *target) {
    for (int64_t r = 0; r < edges; r++) {
        while (p + r >= m->ptr[i + 1]) i++;
        target[r] = i;
    }
    return i;
}

INLINE void reduce_groups(const Network *m, const Share *own, const int max, float *out, float *count, float *work) {
    int64_t channels = m->groups * m->out, first = own->group * m->out, target[EDGES], i = 0;
    float *h = work, *y = work + EDGES * own->hidden;
    for (int64_t row = 0; row < m->targets; row++) {
        memset(out + row * channels + first, 0, own->out * sizeof(float));
        if (max) memset(count + row * channels + first, 0, own->out * sizeof(float));
    }
    for (int64_t p = 0, all_edges = m->ptr[m->targets]; p < all_edges; p += EDGES) {
        int64_t edges = p + EDGES < all_edges ? EDGES : all_edges - p;
        i = targets_of(m, i, p, edges, target);
        values_of(m, own, target, p, edges, h, y);
        for (int64_t r = 0; r < edges; r++)
            for (int64_t c = 0; c < own->out; c += LANES) {
                float *to = out + target[r] * channels + first + c, *times = count + target[r] * channels + first + c;
                vfloat x = load(y + r * own->out + c);
                if (!max) {
                    store(to, load(to) + x);
                } else if (p + r == m->ptr[target[r]]) {
                    store(to, x);
                    store(times, all(1));
                } else {
                    vfloat most = load(to), before = load(times);
                    vmask more = greater(x, most), less = greater(most, x);
                    store(to, choose(more, x, most));
                    store(times, choose(more, all(1), choose(less, before, before + all(1))));
                }
            }
    }
}

typedef struct {
    const float *grad, *out, *count, *back; /* back: (groups, out, hidden), the second map turned */
    float *t, *s, *w, *inner, *bias;
} Gradients;

/* What one edge's output passes on: its target's gradient, or its part in it where it attains the maximum. */
INLINE void pass_on(const Gradients *to, const int max, const float *y, int64_t at, int64_t channels, float *of_y,
                    float *of_bias) {
    for (int64_t c = 0; c < channels; c += LANES) {
        vfloat g = load(to->grad + at + c);
        if (max) {
            vfloat most = load(to->out + at + c), x = load(y + c);
            /* torch starts from zero, and counts that among the edges where it is the maximum. */
            vfloat zero = choose(greater(most, all(0)), all(0), choose(greater(all(0), most), all(0), all(1)));
            vfloat other = choose(greater(x, most), all(1), choose(greater(most, x), all(1), all(0)));
            g = choose(greater(other, all(0)), all(0), g / (load(to->count + at + c) + zero));
        }
        store(of_y + c, g);
        store(of_bias + c, load(of_bias + c) + g);
    }
}

INLINE void grad_groups(const Network *m, const Share *own, const int max, const Gradients *to, float *work) {
    int64_t channels = m->groups * m->hidden, from = own->group * m->hidden, wide = own->hidden;
    int64_t out = m->groups * m->out, first = own->group * m->out, target[EDGES], i = 0;
    float *h = work, *y = h + EDGES * wide, *of_y = y + EDGES * own->out, *of_h = of_y + EDGES * own->out;
    for (int64_t row = 0; row < m->targets && to->t; row++) memset(to->t + row * channels + from, 0, wide * sizeof(float));
    for (int64_t row = 0; row < m->sources; row++) memset(to->s + row * channels + from, 0, wide * sizeof(float));
    for (int64_t d = 0; d < m->features; d++) memset(to->w + d * channels + from, 0, wide * sizeof(float));
    memset(to->inner + first * m->hidden, 0, own->out * m->hidden * sizeof(float));
    memset(to->bias + first, 0, own->out * sizeof(float));
    Layout forth = {own->groups, m->hidden, m->out, wide, own->out, 0};
    Layout back = {own->groups, m->out, m->hidden, own->out, wide, 0};
    for (int64_t p = 0, all_edges = m->ptr[m->targets]; p < all_edges; p += EDGES) {
        int64_t edges = p + EDGES < all_edges ? EDGES : all_edges - p;
        i = targets_of(m, i, p, edges, target);
        values_of(m, own, target, p, edges, h, y);
        for (int64_t r = 0; r < edges; r++)
            pass_on(to, max, y + r * own->out, target[r] * out + first, own->out, of_y + r * own->out, to->bias + first);
        linear_grad(h, of_y, edges, forth, to->inner + first * m->hidden);
        linear_rows(of_y, to->back + first * m->hidden, NULL, edges, back, of_h);
        for (int64_t r = 0; r < edges; r++) {
            float *s = to->s + m->source[p + r] * channels + from, *t = to->t + target[r] * channels + from;
            const float *attr = m->attr + m->edge[p + r] * m->features;
            for (int64_t c = 0; c < wide; c += LANES) {
                vfloat g = choose(greater(load(h + r * wide + c), all(0)), load(of_h + r * wide + c), all(0));
                store(s + c, load(s + c) + g);
                if (to->t) store(t + c, load(t + c) + g);
                for (int64_t d = 0; d < m->features; d++) {
                    float *w = to->w + d * channels + from + c;
                    store(w, load(w) + g * attr[d]);
                }
            }
        }
    }
}

#define NETWORK                                                                                                   \
    int64_t max, int64_t targets, int64_t sources, int64_t groups, int64_t hidden, int64_t out_group,             \
        int64_t features, const int64_t *ptr, const int64_t *source, const int64_t *edge, const float *t,         \
        const float *s, const float *attr, const float *w, const float *inner, const float *bias
#define FILLED_NETWORK                                                                                            \
    {targets, sources, groups, hidden, out_group, features, ptr, source, edge, t, s, attr, w, inner, bias}

/* out, count: (targets, groups * out_group); count: how many edges attain a maximum. `work`: for each thread 32 edges'
 * hidden values and outputs of all groups. */
void mgic_edge_mlp(NETWORK, float *out, float *count, float *work, int64_t threads) {
    Network m = FILLED_NETWORK;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t thread = 0; thread < threads; thread++) {
        Share own = share_of(&m, thread, threads);
        float *room = work + thread * EDGES * groups * (hidden + out_group);
        if (max) reduce_groups(&m, &own, 1, out, count, room);
        else reduce_groups(&m, &own, 0, out, count, room);
    }
}

/* `work`: twice as much. of_t and of_w may be absent. */
void mgic_edge_mlp_grad(NETWORK, const float *grad, const float *out, const float *count, const float *back, float *of_t,
                        float *of_s, float *of_w, float *of_inner, float *of_bias, float *work, int64_t threads) {
    Network m = FILLED_NETWORK;
    Gradients to = {grad, out, count, back, of_t, of_s, of_w, of_inner, of_bias};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t thread = 0; thread < threads; thread++) {
        Share own = share_of(&m, thread, threads);
        float *room = work + thread * 2 * EDGES * groups * (hidden + out_group);
        if (max) grad_groups(&m, &own, 1, &to, room);
        else grad_groups(&m, &own, 0, &to, room);
    }
}
