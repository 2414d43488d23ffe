/* The order of the images in an epoch, without a table: any place of any epoch at once. */
#ifndef FI_SHUFFLE_H
#define FI_SHUFFLE_H

#include <stdint.h>

/* Streams of the library's generator (lib/noise.h) that the training data use. */
enum { FI_STREAM_ORDER = 48, FI_STREAM_AUGMENT = 49 };

/* Image at place `place` of epoch `epoch`: over the places 0 .. count - 1 a permutation, which seed
 * and epoch decide. count is 1 to 2^31 - 1. */
int64_t fi_shuffle(uint64_t seed, uint32_t epoch, int64_t count, int64_t place);

#endif
