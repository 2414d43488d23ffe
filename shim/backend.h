/* The seam between libfeatinv (C) and a backend (libtorch behind C++): one table of functions.
 *
 * Private: both sides are built from one source tree, and FI_BACKEND_ABI changes with any edit.
 * Only pointers, integers and floats cross. All host arrays are C-ordered; float means float32.
 * Every function that can fail returns 0 or a negative featinv_status number, catches everything,
 * and leaves one line for the calling thread in error().
 *
 * Division of labour: the core owns files, hashes, schedules, noise, order, progress and cancel;
 * the backend owns programs, weights, device memory and arithmetic. A sampling step is one
 * crossing, and tensors stay on the device between steps.
 */
#ifndef FI_BACKEND_H
#define FI_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FI_BACKEND_ABI 4
#define FI_BACKEND_ENTRY "fi_backend_table"

enum { FI_DEVICE_CPU = 1, FI_DEVICE_CUDA = 2 }; /* as DLPack */

/* Programs of a bundle (docs/bundle.md), also the bits of a set. */
enum {
    FI_PROGRAM_BACKBONE = 0,
    FI_PROGRAM_HEAD,
    FI_PROGRAM_HINT,
    FI_PROGRAM_CONTROL,
    FI_PROGRAM_UNET,
    FI_PROGRAM_ENCODER,
    FI_PROGRAM_DECODER,
    FI_PROGRAM_COUNT
};

typedef struct fi_net fi_net;         /* the programs and weights of one bundle on one device */
typedef struct fi_sampler fi_sampler; /* one sampling run: tables, hints, latents */
typedef struct fi_trainer fi_trainer; /* trained weights of a net, and their optimiser */
typedef struct fi_operand fi_operand; /* float32 rows that much is multiplied with */

/* Everything of a sampling run that does not depend on the lane. Pointers are read during
 * sampler_create only. One lane is one latent; B lanes run together. */
typedef struct fi_sampler_plan {
    int32_t steps;
    const int64_t *timesteps;                 /* (steps), in the order run: largest first */
    const double *alpha, *alpha_prev, *sigma; /* (steps), in the order run */
    int32_t prediction;                       /* 0 epsilon, 1 v */
    double scale;                             /* s: eps_u + s (eps_c - eps_u); 1: one branch */
    double hint_scale;                        /* s_h; not 1: adds a branch with a zero map */
    int32_t guess_mode;                       /* negative branch without the ControlNet */
    const double *strengths;                  /* (residuals); NULL: all 1 */
    int32_t strength_count;                   /* length of strengths */
    double strength;                          /* factor on all of them */
    const float *context, *uncontext;         /* (L, D); uncontext NULL when s = s_h = 1 */
    int64_t context_rows, uncontext_rows, context_dim;
    int64_t latent[3]; /* C, h, w */
    int64_t map[3];    /* C, H, W */
    int32_t pooled;    /* replace maps by their tiled spatial mean */
    double latent_scale;
} fi_sampler_plan;

/* What a trainer holds of each trained tensor, float32 in the tensor's C order. */
enum {
    FI_TRAINED_VALUE = 0,
    FI_TRAINED_GRADIENT, /* of the running step; zeros where there is none */
    FI_TRAINED_FIRST,    /* moving average of the gradient */
    FI_TRAINED_SECOND,   /* moving average of its square */
    FI_TRAINED_AVERAGE   /* moving average of the values; only where the plan keeps one */
};

/* What is trained: the hint encoder and the ControlNet always. */
enum { FI_TRAIN_LOCKED = 0, FI_TRAIN_UNLOCKED, FI_TRAIN_JOINT };

typedef struct fi_trainer_plan {
    int32_t mode;       /* unlocked: the UNet's decoder half too; joint: all of it */
    int32_t prediction; /* 0 epsilon, 1 v */
    int32_t pooled;     /* replace maps by their tiled spatial mean */
    int32_t autocast;   /* bfloat16 where that is safe; CUDA only */
    int32_t average;    /* keep a moving average of the values */
    int32_t reserved;
    double beta1, beta2, epsilon, weight_decay; /* AdamW */
    int64_t latent[3];                          /* C, h, w */
    int64_t map[3];                             /* C, H, W */
} fi_trainer_plan;

/* Samples of one forward. Pointers are read during the call only. */
typedef struct fi_trainer_batch {
    int64_t n;
    const float *latents, *noise; /* (n, C, h, w): z0 and epsilon */
    const int64_t *timesteps;     /* (n) */
    const double *signal, *sigma; /* (n): sqrt(abar) and sqrt(1 - abar) */
    const float *maps;            /* (n, C, H, W) */
    const float *contexts;        /* (n, L, D) */
    int64_t context_rows, context_dim;
    const double *weights; /* (n): factor of each sample's loss in what is minimised */
} fi_trainer_batch;

typedef struct fi_backend {
    uint32_t abi;  /* FI_BACKEND_ABI */
    uint32_t size; /* sizeof(fi_backend) */

    const char *(*error)(void); /* the calling thread's last failure; never NULL */
    int (*describe)(char *text, size_t capacity);

    /* Devices. device_open checks that the device exists (opening the CUDA plug-in on demand). */
    int (*cuda_count)(void); /* 0 without plug-in, driver or device */
    int (*device_open)(int32_t device_type, int32_t index);
    int (*set_threads)(int32_t threads); /* process-wide; 0 leaves it */
    int (*set_deterministic)(int32_t on);

    /* Nets. dtype is a featinv_dtype number: 1 fp32, 2 fp16, 3 bf16. Not thread-safe while loading
     * (the core holds a lock), thread-safe for running afterwards. A net for training (fp32 only)
     * keeps its weights as the programs have them: nothing is packed or folded, and only a trainer
     * runs it. */
    int (*net_create)(fi_net **out, int32_t device_type, int32_t index, int32_t dtype,
                      int32_t training);
    void (*net_destroy)(fi_net *net);
    /* Parses a program whose hash was checked. */
    int (*program_load)(fi_net *net, int32_t program, const void *bytes, size_t size);
    /* The program's external tensors (parameters and float buffers): name and shape (borrowed). */
    int (*program_tensor_count)(fi_net *net, int32_t program, int64_t *count);
    int (*program_tensor)(fi_net *net, int32_t program, int64_t index, const char **key,
                          const int64_t **shape, int32_t *ndim);
    /* Memory into which the core reads the raw bytes of `key`, stored as dtype (1, 2, 3 or 4: f64);
     * NULL in *memory: no loaded program wants it. The shape has been compared by the core. */
    int (*weight_memory)(fi_net *net, const char *key, int32_t dtype, void **memory, size_t bytes);
    /* The bytes are there: converts to the net's dtype, moves to the device, frees the rest. */
    int (*weight_done)(fi_net *net, const char *key);
    /* All weights are there (else error naming one): rewrites, packs, frees what was replaced. */
    int (*program_finish)(fi_net *net, int32_t program);

    /* Forwards. Host in, host out. logits may be NULL. */
    int (*backbone)(fi_net *net, float *maps, float *logits, const float *images, int64_t n,
                    const int64_t image[3], const int64_t map[3], int64_t classes);
    int (*head)(fi_net *net, float *logits, const float *maps, int64_t n, const int64_t map[3],
                int64_t classes);
    int (*encode)(fi_net *net, float *mean, float *logvar, const float *images, int64_t n,
                  const int64_t image[3], const int64_t latent[3]);
    /* Latents already divided by the latent scale. bytes: (n,H,W,3) 127.5 x + 127.5 in two float32
     * roundings, clipped, rounded half to even (legacy: truncated); or floats (n,3,H,W). One of
     * the two. */
    int (*decode)(fi_net *net, uint8_t *bytes, float *floats, int32_t legacy, const float *latents,
                  int64_t n, const int64_t latent[3], const int64_t image[3]);
    /* One evaluation; any of the outputs may be NULL. x NULL: hint only. strengths as in the plan.
     * residuals: array of residual_count host pointers; sizes must match residual_sizes
     * (elements). */
    int (*denoise)(fi_net *net, float *prediction, float *hint, int64_t hint_size,
                   float *const *residuals, const int64_t *residual_sizes, int32_t residual_count,
                   const float *x, const int64_t *t, const float *context, int64_t context_rows,
                   int64_t context_dim, const float *maps, int64_t n, const int64_t latent[3],
                   const int64_t map[3], int32_t pooled, const double *strengths,
                   int32_t strength_count, int32_t no_control);
    /* Shape (C, h, w) of the encoded hint and of residual i for latents of this shape; *count: how
     * many residuals. shapes may be NULL. */
    int (*residual_shapes)(fi_net *net, int64_t hint_shape[3], int64_t (*shapes)[3],
                           int32_t capacity, int32_t *count, const int64_t latent[3],
                           const int64_t map[3]);

    /* Sampling. create computes time banks of all steps and the context projections once. */
    int (*sampler_create)(fi_sampler **out, fi_net *net, const fi_sampler_plan *plan);
    /* Encodes the hints of n maps (n, C, H, W), replacing earlier ones; the zero map once a run. */
    int (*sampler_hints)(fi_sampler *sampler, const float *maps, int64_t n);
    /* Starts `lanes` latents from noise (lanes, C, h, w); lane j uses hint map_index[j]. */
    int (*sampler_start)(fi_sampler *sampler, const float *noise, const int64_t *map_index,
                         int64_t lanes);
    /* Step i (0: the noisiest): all branches in one forward, guidance, DDIM update.
     * step_noise: (lanes, C, h, w) or NULL where sigma is 0. x, x0: host outputs or NULL. */
    int (*sampler_step)(fi_sampler *sampler, int32_t i, const float *step_noise, float *x,
                        float *x0);
    int (*sampler_latents)(fi_sampler *sampler, float *latents); /* scaled z, (lanes, C, h, w) */
    int (*sampler_decode)(fi_sampler *sampler, uint8_t *bytes, float *floats, int32_t legacy,
                          const int64_t image[3]);
    void (*sampler_destroy)(fi_sampler *sampler);

    /* Training, over a net made for it with hint, control and unet finished; the net must outlive
     * the trainer, and one thread at a time uses both. */
    int (*trainer_create)(fi_trainer **out, fi_net *net, const fi_trainer_plan *plan);
    /* The trained tensors: how many, and each one's key and shape (borrowed). */
    int (*trainer_count)(fi_trainer *trainer, int64_t *count);
    int (*trainer_tensor)(fi_trainer *trainer, int64_t index, const char **key,
                          const int64_t **shape, int32_t *ndim);
    /* losses (n): mean squared error of each sample. backward: adds the gradient of the sum of
     * weights times losses to what the gradients hold. */
    int (*trainer_forward)(fi_trainer *trainer, double *losses, const fi_trainer_batch *batch,
                           int32_t backward);
    /* L2 norm of all gradients together; may be infinite or NaN. */
    int (*trainer_norm)(fi_trainer *trainer, double *norm);
    /* One AdamW update with gradients times factor (they stay scaled), `step` counted from 1; then
     * the average, if kept, moves by 1 - average_decay towards the values. */
    int (*trainer_update)(fi_trainer *trainer, double rate, double factor, int64_t step,
                          double average_decay);
    int (*trainer_clear)(fi_trainer *trainer); /* forgets the gradients */
    int (*trainer_read)(fi_trainer *trainer, int32_t what, int64_t index, float *values);
    /* A gradient that is not there stays so: the loss does not reach that tensor, and the update
     * leaves it alone. */
    int (*trainer_write)(fi_trainer *trainer, int32_t what, int64_t index, const float *values);
    void (*trainer_destroy)(fi_trainer *trainer);

    /* Dense linear algebra in float64, row-major; used by metrics and concepts. */
    int (*gemm)(double *c, const double *a, const double *b, int64_t m, int64_t n, int64_t k,
                int32_t transpose_a, int32_t transpose_b);
    /* Eigenvalues in ascending order, eigenvectors in columns. */
    int (*eigh)(double *values, double *vectors, const double *a, int64_t n);
    /* min(m, n) values, descending. */
    int (*singular_values)(double *values, const double *a, int64_t m, int64_t n);
    /* Lower Cholesky factor; returns 0 and *ok = 0 where a is not positive definite. */
    int (*cholesky)(double *factor, int32_t *ok, const double *a, int64_t n);

    /* Products with one large matrix in float32, without TF32: rows (n, d) on a device. On the
     * CPU the rows are borrowed until destroy. */
    int (*operand_create)(fi_operand **out, int32_t device_type, int32_t index, const float *rows,
                          int64_t n, int64_t d);
    /* out (m, count), `stride` floats from row to row: a (m, d) times the transpose of the
     * operand's `count` rows from `first`. a NULL: its own m rows from a_first. */
    int (*operand_multiply)(fi_operand *operand, float *out, int64_t stride, const float *a,
                            int64_t a_first, int64_t m, int64_t first, int64_t count);
    void (*operand_destroy)(fi_operand *operand);
    int (*thread_count)(void); /* CPU threads of the backend, at least 1 */

    /* Copies device memory (DLPack device) to the host. */
    int (*download)(void *host, const void *device, size_t bytes, int32_t device_index);
} fi_backend;

/* Exported by a backend file: checks the libtorch in the process and returns its table, or NULL
 * with a text in error (capacity bytes). */
typedef const fi_backend *(*fi_backend_entry)(char *error, size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
