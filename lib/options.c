#include "options.h"

#include "error.h"

#include <string.h>

enum { SMALLEST = 8, LARGEST = 65536 };

featinv_status fi_options_init(void *options, size_t size, void *defaults, size_t known) {
    if (!options || size < SMALLEST || size > LARGEST)
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "a struct of %zu bytes: set its struct_size to its sizeof",
                       options ? size : 0);
    uint32_t declared = (uint32_t)size;
    memset(options, 0, size);
    memcpy(options, defaults, size < known ? size : known);
    memcpy(options, &declared, sizeof declared);
    return FEATINV_OK;
}

featinv_status fi_options_read(void *into, size_t known, const void *options) {
    if (!options)
        return FEATINV_OK;
    uint32_t size;
    memcpy(&size, options, sizeof size);
    if (size < SMALLEST || size > LARGEST)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "struct_size is %u: initialise the options first",
                       size);
    const unsigned char *bytes = options;
    for (size_t i = known; i < size; i++)
        if (bytes[i])
            return fi_fail(FEATINV_ERROR_UNSUPPORTED,
                           "options of a newer version use a field that this library lacks");
    memcpy(into, options, size < known ? size : known);
    uint32_t declared = (uint32_t)known;
    memcpy(into, &declared, sizeof declared);
    return FEATINV_OK;
}
