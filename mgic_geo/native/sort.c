/* The edges of a graph by their targets: a counting sort. */
#include "kernels.h"

/* order: (edges) the edges by target, those of one target as they come; own_source: (edges) their sources; ptr:
 * (nodes + 1) where those of each begin. In one thread: it reads and writes the edges twice. */
void mgic_sort_edges(const int64_t *target, const int64_t *source, int64_t edges, int64_t nodes, int64_t *order,
                     int64_t *own_source, int64_t *ptr, int64_t threads) {
    (void)threads;
    memset(ptr, 0, (nodes + 1) * sizeof(int64_t));
    for (int64_t e = 0; e < edges; e++) ptr[target[e] + 1]++;
    for (int64_t i = 0; i < nodes; i++) ptr[i + 1] += ptr[i];
    for (int64_t e = 0; e < edges; e++) {
        int64_t at = ptr[target[e]]++; /* now where the next one goes */
        order[at] = e;
        own_source[at] = source[e];
    }
    memmove(ptr + 1, ptr, nodes * sizeof(int64_t)); /* each has come to where the next begins */
    ptr[0] = 0;
}
