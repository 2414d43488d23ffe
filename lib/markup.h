/* What the library's report and the command's pages share: escaping, inlined pictures, one look.
 * The file is compiled into both, since the library exports none of it. */
#ifndef FI_MARKUP_H
#define FI_MARKUP_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Text with &, <, >, quotes escaped and control characters left out. NULL writes nothing. */
void fi_markup_escape(FILE *stream, const char *text);

/* An <img> of a whole PNG or JPEG file's bytes, inlined; `what` is its alternative text. */
void fi_markup_picture(FILE *stream, const char *what, const uint8_t *bytes, size_t size);

/* Everything down to the heading; more_style is appended to the common one (NULL: nothing). */
void fi_markup_begin(FILE *stream, const char *title, const char *more_style);
void fi_markup_end(FILE *stream);

/* "8.4 s", "3 min 05 s", "2 h 07 min" */
void fi_markup_duration(char *text, size_t capacity, double seconds);

#endif
