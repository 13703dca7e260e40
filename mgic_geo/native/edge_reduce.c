/* Sums, sums of squares, maxima and minima at each target of values of the edges of any graph, in one pass: sums of what
 * source, target and the edge's features give, or two maps of it; and the gradient, for which they are made again.
 *
 * Some edges at a time stay in the cache. Threads share the groups, so that they never write to the same place. */
#include "linear.h"
#include "messages.h"

#define EDGES 32 /* at once */

typedef struct {
    int64_t targets, sources, groups, hidden, out, features; /* hidden, out: channels of a group */
    const int64_t *ptr, *source, *edge;                      /* by target */
    const float *t, *s, *attr, *w, *inner, *bias; /* inner: (groups, hidden, out), the second map, or absent */
} Network;

/* What is asked for; a count says how many edges attain a maximum or a minimum. */
typedef struct {
    float *sum, *square, *max, *max_count, *min, *min_count;
} Reduced;

/* The groups of a thread. */
typedef struct {
    int64_t groups, hidden, out, group; /* how many there are, and channels of all of them; the first */
} Share;

static inline Share share_of(const Network *m, int64_t thread, int64_t threads) {
    int64_t first = m->groups * thread / threads, count = m->groups * (thread + 1) / threads - first;
    return (Share){count, count * m->hidden, count * m->out, first};
}

/* Hidden values and outputs, which are the same without a second map, of some edges. Never inlined: those made again
 * must be the same to the last bit, so that the edges which attain a maximum are known by it. */
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
            store(h + r * own->hidden + c, m->inner ? relu_of(x) : x);
        }
    }
    if (!m->inner) return;
    Layout rows = spaced_rows(own->groups, m->hidden, m->out, own->hidden, own->out);
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

/* Take x into a maximum or, with sign -1, a minimum, and count what attains it. */
INLINE void take(float *most, float *count, vfloat x, float sign, int first) {
    vfloat before = load(most), times = load(count), off = (x - before) * all(sign);
    vmask more = greater(off, all(0)) | not_a_number(x), less = greater(all(0), off) | not_a_number(before);
    store(most, first ? x : choose(more, x, before)); /* once nan, always nan */
    store(count, first ? all(1) : choose(more, all(1), choose(less, times, times + all(1))));
}

static void reduce_groups(const Network *m, const Share *own, const Reduced *to, float *work) {
    int64_t channels = m->groups * m->out, first = own->group * m->out, target[EDGES], i = 0;
    float *h = work, *y = m->inner ? work + EDGES * own->hidden : h;
    float *every[6] = {to->sum, to->square, to->max, to->max_count, to->min, to->min_count};
    for (int which = 0; which < 6; which++)
        for (int64_t row = 0; row < m->targets && every[which]; row++)
            memset(every[which] + row * channels + first, 0, own->out * sizeof(float));
    for (int64_t p = 0, last = m->ptr[m->targets]; p < last; p += EDGES) {
        int64_t edges = p + EDGES < last ? EDGES : last - p;
        i = targets_of(m, i, p, edges, target);
        values_of(m, own, target, p, edges, h, y);
        for (int64_t r = 0; r < edges; r++) {
            int begins = p + r == m->ptr[target[r]];
            for (int64_t c = 0; c < own->out; c += LANES) {
                int64_t at = target[r] * channels + first + c;
                vfloat x = load(y + r * own->out + c);
                if (to->sum) store(to->sum + at, load(to->sum + at) + x);
                if (to->square) store(to->square + at, load(to->square + at) + x * x);
                if (to->max) take(to->max + at, to->max_count + at, x, 1, begins);
                if (to->min) take(to->min + at, to->min_count + at, x, -1, begins);
            }
        }
    }
}

typedef struct {
    const float *grad_sum, *grad_square, *grad_max, *grad_min, *back; /* back: (groups, out, hidden), the second map turned */
    float *t, *s, *w, *inner, *bias;
} Gradients;

/* An edge's part in the gradient of a maximum or minimum, which those that attain it share. */
INLINE vfloat part_of(const float *grad, const float *most, const float *count, vfloat x) {
    vfloat whole = load(most);
    vmask other = greater(x, whole) | greater(whole, x), zero = greater(whole, all(0)) | greater(all(0), whole);
    /* torch starts from zero, and counts that among the edges where it is the maximum. */
    return choose(other, all(0), load(grad) / (load(count) + choose(zero, all(0), all(1))));
}

/* What the outputs of some edges pass on. */
static void pass_on(const Network *m, const Share *own, const int64_t *target, int64_t edges, const Reduced *from,
                    const Gradients *to, const float *y, float *grad_y) {
    int64_t channels = m->groups * m->out, first = own->group * m->out;
    for (int64_t r = 0; r < edges; r++)
        for (int64_t c = 0; c < own->out; c += LANES) {
            int64_t at = target[r] * channels + first + c;
            vfloat x = load(y + r * own->out + c), g = to->grad_sum ? load(to->grad_sum + at) : all(0);
            if (to->grad_square) g += all(2) * x * load(to->grad_square + at);
            if (to->grad_max) g += part_of(to->grad_max + at, from->max + at, from->max_count + at, x);
            if (to->grad_min) g += part_of(to->grad_min + at, from->min + at, from->min_count + at, x);
            store(grad_y + r * own->out + c, g);
            if (to->bias) store(to->bias + first + c, load(to->bias + first + c) + g);
        }
}

static void grad_groups(const Network *m, const Share *own, const Reduced *from, const Gradients *to, float *work) {
    int64_t channels = m->groups * m->hidden, first = own->group * m->hidden, wide = own->hidden;
    int64_t inner = own->group * m->out * m->hidden, target[EDGES], i = 0;
    float *h = work, *y = h + EDGES * wide, *grad_y = y + EDGES * own->out, *grad_h = grad_y + EDGES * own->out;
    if (!m->inner) y = h, grad_h = grad_y;
    int64_t bytes = wide * (int64_t)sizeof(float);
    for (int64_t row = 0; row < m->targets && to->t; row++) memset(to->t + row * channels + first, 0, bytes);
    for (int64_t row = 0; row < m->sources; row++) memset(to->s + row * channels + first, 0, bytes);
    for (int64_t d = 0; d < m->features; d++) memset(to->w + d * channels + first, 0, bytes);
    if (m->inner) memset(to->inner + inner, 0, own->out * m->hidden * sizeof(float));
    if (to->bias) memset(to->bias + own->group * m->out, 0, own->out * sizeof(float));
    Layout forth = spaced_rows(own->groups, m->hidden, m->out, wide, own->out);
    Layout back = spaced_rows(own->groups, m->out, m->hidden, own->out, wide);
    for (int64_t p = 0, last = m->ptr[m->targets]; p < last; p += EDGES) {
        int64_t edges = p + EDGES < last ? EDGES : last - p;
        i = targets_of(m, i, p, edges, target);
        values_of(m, own, target, p, edges, h, y);
        pass_on(m, own, target, edges, from, to, y, grad_y);
        if (m->inner) {
            linear_grad(h, grad_y, edges, forth, to->inner + inner);
            linear_rows(grad_y, to->back + inner, NULL, edges, back, grad_h);
        }
        for (int64_t r = 0; r < edges; r++) {
            float *s = to->s + m->source[p + r] * channels + first, *t = to->t + target[r] * channels + first;
            const float *attr = m->attr + m->edge[p + r] * m->features;
            for (int64_t c = 0; c < wide; c += LANES) {
                vfloat g = load(grad_h + r * wide + c);
                if (m->inner) g = choose(passes(load(h + r * wide + c)), g, all(0));
                store(s + c, load(s + c) + g);
                if (to->t) store(t + c, load(t + c) + g);
                for (int64_t d = 0; d < m->features; d++) {
                    float *w = to->w + d * channels + first + c;
                    store(w, load(w) + g * attr[d]);
                }
            }
        }
    }
}

#define NETWORK                                                                                                   \
    int64_t targets, int64_t sources, int64_t groups, int64_t hidden, int64_t out_group, int64_t features,        \
        const int64_t *ptr, const int64_t *source, const int64_t *edge, const float *t, const float *s,           \
        const float *attr, const float *w, const float *inner, const float *bias, float *sum, float *square,      \
        float *max, float *max_count, float *min, float *min_count
#define FILLED_NETWORK                                                                                            \
    {targets, sources, groups, hidden, out_group, features, ptr, source, edge, t, s, attr, w, inner, bias}

/* Sums and the others: (targets, groups * out_group) or absent. `work`: for each thread 32 edges' hidden values and
 * outputs of all groups. */
void mgic_edge_reduce(NETWORK, float *work, int64_t threads) {
    Network m = FILLED_NETWORK;
    Reduced to = {sum, square, max, max_count, min, min_count};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t thread = 0; thread < threads; thread++) {
        Share own = share_of(&m, thread, threads);
        reduce_groups(&m, &own, &to, work + thread * EDGES * groups * (hidden + out_group));
    }
}

/* `work`: twice as much. Gradients of what is absent are absent. */
void mgic_edge_reduce_grad(NETWORK, const float *grad_sum, const float *grad_square, const float *grad_max,
                           const float *grad_min, const float *back, float *grad_t, float *grad_s, float *grad_w,
                           float *grad_inner, float *grad_bias, float *work, int64_t threads) {
    Network m = FILLED_NETWORK;
    Reduced from = {sum, square, max, max_count, min, min_count};
    Gradients to = {grad_sum, grad_square, grad_max, grad_min, back, grad_t, grad_s, grad_w, grad_inner, grad_bias};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t thread = 0; thread < threads; thread++) {
        Share own = share_of(&m, thread, threads);
        grad_groups(&m, &own, &from, &to, work + thread * 2 * EDGES * groups * (hidden + out_group));
    }
}
