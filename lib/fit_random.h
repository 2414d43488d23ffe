/* Random numbers of a fit: a sequence per seed, stream and substream, the same on every machine. */
#ifndef FI_FIT_RANDOM_H
#define FI_FIT_RANDOM_H

#include <stdint.h>

/* Streams of the library's generator (lib/noise.h); sampling uses 0. */
enum { FI_STREAM_SUBSAMPLE = 16, FI_STREAM_KMEANS = 17, FI_STREAM_SPECTRAL = 18 };

typedef struct fi_random {
    uint64_t seed, block;
    uint32_t stream, substream;
    uint32_t words[4];
    int left; /* words not yet given out */
} fi_random;

fi_random fi_random_start(uint64_t seed, uint32_t stream, uint32_t substream);

/* Uniform on [0, 1), 53 bits. */
double fi_random_unit(fi_random *random);

/* Uniform on 0..bound-1, without the bias of a plain remainder; bound above 0. */
uint64_t fi_random_below(fi_random *random, uint64_t bound);

#endif
