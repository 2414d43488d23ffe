/* The orientation that a camera noted. */
#ifndef FI_EXIF_H
#define FI_EXIF_H

#include "featinv.h"

#include <stdbool.h>

/* Orientation in an EXIF block, with or without its "Exif\0\0"; 0 where it has none. */
int fi_exif_orientation(const uint8_t *bytes, size_t size);

/* Orientation in an XMP packet, 0 where it has none. */
int fi_xmp_orientation(const uint8_t *bytes, size_t size);

/* Whether the orientation swaps width and height. */
bool fi_orientation_swaps(int orientation);

/* Turns packed RGB of width × height as its orientation (2 to 8) says. out and in are apart. */
void fi_orient(uint8_t *out, const uint8_t *in, uint32_t width, uint32_t height, int orientation);

#endif
