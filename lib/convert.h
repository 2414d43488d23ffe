/* Conversions between element types. */
#ifndef FI_CONVERT_H
#define FI_CONVERT_H

#include "featinv.h"

#include <stdbool.h>

/* Whether fi_convert can turn `from` into `to`: equal types, any number or truth value into F32 or
 * F64. */
bool fi_can_convert(featinv_dtype to, featinv_dtype from);

/* count elements, out and in apart and aligned. Rounds to nearest, ties to even. */
void fi_convert(void *out, featinv_dtype to, const void *in, featinv_dtype from, size_t count);

/* Reverses the bytes of count elements in place. */
void fi_swap_bytes(void *values, size_t element, size_t count);

/* IEEE binary16 and bfloat16 to float: exact. */
float fi_half_to_float(uint16_t half);
float fi_bfloat_to_float(uint16_t value);

/* Rounds to nearest, ties to even; beyond the range: infinity. */
uint16_t fi_float_to_half(float value);

#endif
