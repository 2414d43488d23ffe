#include "fit_random.h"

#include "noise.h"

fi_random fi_random_start(uint64_t seed, uint32_t stream, uint32_t substream) {
    return (fi_random){.seed = seed, .stream = stream, .substream = substream};
}

static uint64_t next64(fi_random *random) {
    if (random->left == 0) {
        const uint32_t key[2] = {(uint32_t)random->seed, (uint32_t)(random->seed >> 32)};
        const uint32_t counter[4] = {random->substream, (uint32_t)(random->block >> 32),
                                     random->stream, (uint32_t)random->block};
        fi_philox(random->words, counter, key);
        random->block++;
        random->left = 4;
    }
    const uint32_t *words = random->words + (4 - random->left);
    random->left -= 2;
    return (uint64_t)words[0] << 32 | words[1];
}

double fi_random_unit(fi_random *random) {
    return (double)(next64(random) >> 11) / 9007199254740992.0; /* 2^53 */
}

uint64_t fi_random_below(fi_random *random, uint64_t bound) {
    uint64_t surplus = (UINT64_MAX % bound + 1) % bound; /* 2^64 mod bound */
    uint64_t word;
    do
        word = next64(random);
    while (word > UINT64_MAX - surplus);
    return word % bound;
}
