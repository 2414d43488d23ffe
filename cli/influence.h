/* How far a change in one region of a picture reaches. */
#ifndef CLI_INFLUENCE_H
#define CLI_INFLUENCE_H

#include "cli.h"

typedef struct cli_influence {
    double
        *change; /* mean colour distance at a distance of about i pixels from the region; 0: inside;
                         NaN where no pixel lies there */
    int64_t count; /* of them */
    double radius; /* pixels at which it has fallen to a tenth of that inside; NaN: it does not, or
                         nothing lies outside */
} cli_influence;

/* before, after: (pictures, height, width, 3); inside: (height, width), 1 in the region. Colour
 * distance is Euclidean over RGB in [0, 1]. */
int cli_influence_measure(cli_influence *out, const uint8_t *before, const uint8_t *after,
                          int64_t pictures, const uint8_t *inside, int64_t height, int64_t width);
void cli_influence_free(cli_influence *influence);

#endif
