/* JSON values for --json and for the settings of a job. */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include "featinv.h"

#include <jansson.h>
#include <stdint.h>

/* NULL and what is not UTF-8 become null. */
json_t *cli_json_text(const char *text);
/* NaN and infinity become null. */
json_t *cli_json_number(double value);
/* 16 hexadecimal digits. */
json_t *cli_json_hash(uint64_t hash);
/* Steals value. */
void cli_json_set(json_t *object, const char *key, json_t *value);
/* Names of the concept sets that a bundle holds. */
json_t *cli_concept_sets(const featinv_model *model);
/* Prints the value to standard output and releases it. Returns an exit code. */
int cli_json_print(json_t *value);

#endif
