/* Counter-based noise: the same bits on every machine, in any order (docs/numerics.md). */
#ifndef FI_NOISE_H
#define FI_NOISE_H

#include <stddef.h>
#include <stdint.h>

/* Philox4x32 with ten rounds (Salmon et al. 2011): out may be counter. */
void fi_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

/* Elements 0 to count-1 of the normal sequence at (seed, sample, step, stream). */
void fi_noise(float *out, size_t count, uint64_t seed, uint32_t sample, uint32_t step,
              uint32_t stream);

#endif
