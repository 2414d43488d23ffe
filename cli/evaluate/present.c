/* Figures and names as they are shown, and the entry that writes both files. */
#include "present.h"

#include "../cli.h"

#include <math.h>
#include <string.h>

const char evaluation_about[] =
    "How much of an image can be drawn again from what a vision model has kept of it? Each image "
    "is turned into the feature map of the vision model, a diffusion model draws a picture from "
    "that map alone, and the picture's own feature map is compared with the first one.";

const char evaluation_citation[] =
    "The tables follow those of the FeatInv paper (Neukirch, Vielhaben, Strodthoff 2025, arXiv "
    "2505.21032), which measures 10 images of each ImageNet class with a Stable-Diffusion-size "
    "model. Its numbers and these are not comparable in absolute terms: a cosine depends on the "
    "backbone, a Fréchet distance on the network behind it and on the number of images.";

const char *const evaluation_glossary[][2] = {
    {"cosine (median per image, mean)",
     "At each position of the map, the cosine between the original's features and the picture's; "
     "the median over the positions of an image, then the mean over images. 1 is the same "
     "direction everywhere."},
    {"cosine (median of all positions)",
     "The other reading of the paper's “median”: one median over all positions of all images."},
    {"centred cosine",
     "The same after the mean feature vector of the training images is subtracted from both, so "
     "that what all maps share earns nothing. The figure to compare models by."},
    {"share of floor → ceiling",
     "Where the centred cosine lies between another image of the class (0) and what the "
     "autoencoder alone lets through (1)."},
    {"pooled cosine",
     "Cosine between the mean features of the two maps: all that a model of pooled features can "
     "match. The other cosines are over the positions of the map for such a model, too."},
    {"top-1, top-5",
     "How often the picture's best class (its five best classes) holds the class that the vision "
     "model gives the original."},
    {"feature-FID, FID",
     "Fréchet distance between the pooled features of originals and pictures: how far the two "
     "sets are apart as sets; 0 is the same mean and spread. It is called FID with the features "
     "of an Inception network only."},
    {"reference",
     "The same agreement in a second network, which the drawing model was not trained for: it "
     "tells pictures that look right from pictures that please one network."},
    {"gradient",
     "Mean length of the brightness gradient over that of the originals: below 1 the pictures are "
     "smoother, above 1 busier."},
    {"floors and ceiling",
     "“Shuffled pairs” compares each original with another image, “another image of the class” "
     "with one of its own class; “autoencoder” with its own round trip through the autoencoder "
     "that every drawn picture passes. “Class prompt only” draws from the name of the class, "
     "without the map."},
    {"[low, high]", "95 % interval of a bootstrap over the images."},
    {NULL, NULL}};

const char *evaluation_string(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* ---------------------------------------------------------------- figures -------------------- */

static double number(const json_t *value) {
    return json_is_number(value) ? json_number_value(value) : NAN;
}

evaluation_figure evaluation_figure_of(const json_t *object, const char *key) {
    const json_t *figure = json_object_get(object, key);
    if (!json_is_object(figure))
        return (evaluation_figure){number(figure), NAN, NAN};
    return (evaluation_figure){number(json_object_get(figure, "value")),
                               number(json_object_get(figure, "low")),
                               number(json_object_get(figure, "high"))};
}

/* Three decimals, as the paper; fewer where `size`, the largest of a figure's numbers, is long,
 * more digits where it is tiny. No zero in front of the point. */
static void put_number(char *text, size_t capacity, double value, double size) {
    const char *format = "%.3f";
    if (size >= 1e5)
        format = "%.3g";
    else if (size >= 9.9995)
        format = size >= 99.995 ? "%.1f" : "%.2f";
    else if (size < 0.00995)
        format = size < 1e-5 ? "%.1e" : "%.2g";
    (void)snprintf(text, capacity, value == 0.0 ? ".000" : format, value);
    char *zero = *text == '-' ? text + 1 : text;
    if (zero[0] == '0' && zero[1] == '.')
        memmove(zero, zero + 1, strlen(zero));
}

void evaluation_figure_text(char text[EVALUATION_TEXT], evaluation_figure figure) {
    char value[16], low[16], high[16];
    bool interval = !isnan(figure.low) && !isnan(figure.high);
    double size = fabs(figure.value);
    if (interval)
        size = fmax(size, fmax(fabs(figure.low), fabs(figure.high)));
    if (isnan(figure.value)) {
        (void)snprintf(text, EVALUATION_TEXT, EVALUATION_DASH);
        return;
    }
    put_number(value, sizeof value, figure.value, size);
    put_number(low, sizeof low, figure.low, size);
    put_number(high, sizeof high, figure.high, size);
    (void)snprintf(text, EVALUATION_TEXT, interval ? "%s [%s, %s]" : "%s", value, low, high);
}

/* ---------------------------------------------------------------- names ---------------------- */

static bool is_pooled(const json_t *model) {
    return json_is_true(json_object_get(model, "pooled"));
}

json_t *evaluation_model_name(const json_t *tables, const json_t *index) {
    const json_t *models = json_object_get(tables, "models");
    size_t at = json_is_integer(index) && json_integer_value(index) >= 0
                    ? (size_t)json_integer_value(index)
                    : SIZE_MAX;
    const json_t *model = json_array_get(models, at), *other;
    const char *name = evaluation_string(model, "name");
    if (!model)
        return json_string(EVALUATION_DASH);
    bool twice = false;
    size_t i;
    json_array_foreach(models, i, other) {
        twice = twice || (i != at && strcmp(evaluation_string(other, "name"), name) == 0 &&
                          is_pooled(other) == is_pooled(model));
    }
    const char *pooled = is_pooled(model) && !strstr(name, "pooled") ? ", pooled" : "";
    return twice ? json_sprintf("%s%s (%d)", name, pooled, (int)at + 1)
                 : json_sprintf("%s%s", name, pooled);
}

const char *evaluation_kind_name(const char *kind) {
    static const char *const names[][2] = {
        {"controlnet", "ControlNet"},
        {"class_prompt", "class prompt only"},
        {"shuffled", "floor: shuffled pairs"},
        {"same_class", "floor: another image of the class"},
        {"autoencoder", "ceiling: autoencoder"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i][0], kind) == 0)
            return names[i][1];
    return kind;
}

json_t *evaluation_distance_name(const json_t *tables) {
    const char *features = evaluation_string(json_object_get(tables, "frechet"), "features");
    if (!*features || strcmp(features, "own") == 0)
        return json_string("feature-FID (own backbone)");
    return json_sprintf(strcasestr(features, "inception") ? "FID (%s)" : "feature-FID (%s)",
                        features);
}

static json_int_t integer(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

json_t *evaluation_settings_line(const json_t *tables) {
    const json_t *s = json_object_get(tables, "settings");
    char bootstrap[64] = "no bootstrap";
    if (integer(s, "bootstrap") > 0)
        (void)snprintf(bootstrap, sizeof bootstrap, "%lld bootstrap samples",
                       (long long)integer(s, "bootstrap"));
    return json_sprintf(
        "%lld %s of %lld %s (at most %lld of each) from %s, seed %lld, "
        "%s, libfeatinv %s.",
        (long long)integer(s, "images"), integer(s, "images") == 1 ? "image" : "images",
        (long long)integer(s, "classes"), integer(s, "classes") == 1 ? "class" : "classes",
        (long long)integer(s, "per_class"), evaluation_string(s, "data"),
        (long long)integer(s, "seed"), bootstrap, evaluation_string(tables, "library"));
}

json_t *evaluation_problem(const json_t *problem) {
    const char *input = evaluation_string(problem, "input");
    const char *error = evaluation_string(problem, "error");
    return !*input || strstr(error, input) ? json_string(error)
                                           : json_sprintf("%s: %s", input, error);
}

/* ---------------------------------------------------------------- files ---------------------- */

int cli_evaluation_write(const char *folder, const json_t *tables) {
    json_t *grids = tables ? evaluation_grids(tables) : NULL;
    int code = grids ? evaluation_markdown_write(folder, tables, grids) : cli_fail_memory();
    if (!code)
        code = evaluation_page_write(folder, tables, grids);
    json_decref(grids);
    return code;
}
