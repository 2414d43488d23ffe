/* The images of a part, decoded. */
#include "evaluate.h"

#include "../json.h"

#include <stdlib.h>
#include <string.h>

void evaluate_photos_free(evaluate_photos *photos) {
    cli_photos_free(photos->read);
    free(photos->inputs.items);
    *photos = (evaluate_photos){0};
}

/* Once in the block, and printed once. */
static int note_problem(evaluate *e, evaluate_block *block, const char *path, int code,
                        const char *error) {
    const json_t *known;
    size_t i;
    if (!json_object_get(e->reported, path)) {
        (void)cli_fail(code, "%s", error);
        (void)json_object_set_new_nocheck(e->reported, path, json_true());
    }
    e->has_problems = true;
    json_array_foreach(block->problems, i, known) {
        const char *input = json_string_value(json_object_get(known, "input"));
        if (input && strcmp(input, path) == 0)
            return CLI_DONE;
    }
    json_t *problem = json_object();
    cli_json_set(problem, "input", cli_json_text(path));
    cli_json_set(problem, "error", cli_json_text(error));
    return json_array_append_new(block->problems, problem) ? cli_fail_memory() : CLI_DONE;
}

int evaluate_photos_read(evaluate_photos *out, evaluate *e, evaluate_block *block,
                         const evaluate_set *set, const int64_t *which, int64_t count) {
    *out = (evaluate_photos){.inputs.items = calloc((size_t)count + 1, sizeof *out->inputs.items)};
    if (!out->inputs.items)
        return cli_fail_memory();
    for (int64_t i = 0; i < count; i++)
        out->inputs.items[i].path = set->images[which[i]].path;
    out->inputs.count = count;
    out->read = cli_photos_start(&out->inputs, 0, count, e->values->max_pixels);
    if (!out->read)
        return cli_fail_memory();
    out->images = cli_photos_wait(out->read);
    int code = CLI_DONE;
    for (int64_t i = 0; !code && i < count; i++) {
        int error_code;
        const char *error = cli_photos_error(out->read, i, &error_code);
        if (error)
            code = note_problem(e, block, out->inputs.items[i].path, error_code, error);
        else if (!out->images[i].pixels)
            code = CLI_INTERRUPTED;
    }
    return code;
}

/* A dataset without augmentation gives the crop that the backbone sees. */
int evaluate_references(uint8_t *out, const evaluate *e, const evaluate_network *network,
                        const char *const *paths, int64_t count) {
    const featinv_model_details *info = &network->opened.info;
    int64_t shape[4] = {count, info->input_height, info->input_width, 3};
    size_t view = (size_t)shape[1] * (size_t)shape[2] * 3;
    size_t size = (size_t)info->image[1] * (size_t)info->image[2] * 3;
    uint8_t *views = malloc((size_t)count * view + 1);
    featinv_dataset *dataset = NULL;
    featinv_dataset_options o;
    if (!views)
        return cli_fail_memory();
    featinv_status status = featinv_dataset_options_init(&o, sizeof o, network->opened.model);
    o.batch = (int32_t)count;
    o.augment = 0;
    o.shuffle = 0;
    o.threads = 1;
    o.prefetch = 1;
    o.max_pixels = e->values->max_pixels;
    if (!status)
        status = featinv_dataset_create(&dataset, paths, count, &o);
    featinv_tensor tensor = featinv_tensor_view(views, FEATINV_DTYPE_U8, 4, shape);
    if (!status)
        status = featinv_dataset_batch(NULL, &tensor, NULL, dataset, 0);
    int code = status ? cli_fail_status(status, NULL) : CLI_DONE;
    if (!code && featinv_dataset_problems(dataset) > 0) /* it was read a moment ago */
        code = cli_fail(CLI_INPUT, "%s", featinv_dataset_problem(NULL, dataset, 0));
    for (int64_t i = 0; !code && i < count; i++) {
        featinv_image crop = {views + (size_t)i * view, info->input_width, info->input_height, 0};
        status = featinv_image_resize(out + (size_t)i * size, info->image[2], info->image[1], &crop,
                                      info->interpolation);
        code = status ? cli_fail_status(status, NULL) : CLI_DONE;
    }
    featinv_dataset_destroy(dataset);
    free(views);
    return code;
}
