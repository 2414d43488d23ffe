#include "shuffle.h"

#include "noise.h"

#include <math.h>

/* A Feistel network over pairs (left, right) of numbers below `side`, which permutes 0 .. side^2 -
 * 1, walked until it lands below count (Black and Rogaway 2002): side^2 exceeds count by less than
 * 2 side + 1, so one walk in most cases is one step. With 12 rounds every order of 3 or of 4 images
 * is within .1 % of its share (exact, by enumeration over the round functions). */
enum { ROUNDS = 12 };

static uint32_t side_of(int64_t count) {
    int64_t side = (int64_t)sqrt((double)count);
    while (side * side < count)
        side++;
    return (uint32_t)side;
}

static int64_t permute(int64_t at, uint32_t side, uint64_t seed, uint32_t epoch) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t left = (uint32_t)(at / side), right = (uint32_t)(at % side);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint32_t counter[4] = {right, epoch, FI_STREAM_ORDER, round};
        uint32_t words[4];
        fi_philox(words, counter, key);
        const uint32_t turned =
            (uint32_t)((left + ((uint64_t)words[0] * side >> 32)) % side); /* bias below 2^-16 */
        left = right;
        right = turned;
    }
    return (int64_t)left * side + right;
}

int64_t fi_shuffle(uint64_t seed, uint32_t epoch, int64_t count, int64_t place) {
    const uint32_t side = side_of(count);
    do
        place = permute(place, side, seed, epoch);
    while (place >= count);
    return place;
}
