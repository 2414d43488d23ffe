/* Reading manifest.json into a bundle's fields, every key checked. */
#ifndef FI_MANIFEST_H
#define FI_MANIFEST_H

#include "bundle.h"

/* Fills everything but path, manifest and sha256 from the manifest's text. Errors: BUNDLE, VERSION;
 * the text names the key and the value. */
featinv_status fi_manifest_parse(fi_bundle *bundle, const uint8_t *text, size_t size);

/* A relative name without "..", backslash or control characters. */
bool fi_manifest_name_ok(const char *name);

#endif
