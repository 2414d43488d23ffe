/* The backend's table against the recordings of the published implementation.
 *
 *     shim_test BACKEND.so LIBTORCH_FOLDER REFERENCE TINY_BUNDLE WIDE_BUNDLE
 *
 * The bundles are exported from REFERENCE/tiny.yaml and wide.yaml with the weight rule. Each case
 * prints its figure and its limit; the exit status is 1 when one fails. */
#include <functional>
#include <thread>

#include "support.hpp"

namespace {

const fi_backend *backend;
int failures;

void check(const std::string &name, double figure, double limit) {
    const bool good = figure <= limit;
    failures += !good;
    std::printf("%-4s %-44s %.3g (limit %.3g)\n", good ? "ok" : "FAIL", name.c_str(), figure,
                limit);
}

void check_true(const std::string &name, bool good) {
    failures += !good;
    std::printf("%-4s %s\n", good ? "ok" : "FAIL", name.c_str());
}

/* The call must fail with this status and a text that holds `part`. */
void check_refused(const std::string &name, int status, int wanted, const std::string &part) {
    const std::string text = backend->error();
    const bool good = status == wanted && text.find(part) != std::string::npos &&
                      text.find('\n') == std::string::npos;
    failures += !good;
    std::printf("%-4s %s: %d \"%s\"\n", good ? "ok" : "FAIL", name.c_str(), status, text.c_str());
}

struct Evaluation {
    Floats prediction, hint;
    std::vector<Floats> residuals;
};

/* Inputs of eps.npz and the like, `rows` of them from `first`. */
struct Inputs {
    Floats x, context, map;
    std::vector<std::int64_t> t;
    std::int64_t n, length, width;
    std::int64_t latent[3], grid[3];

    Inputs(const Arrays &a, std::size_t first, std::size_t rows, const char *times = "t") {
        const auto part = [&](const char *name) {
            const Floats all = a.at(name).floats();
            const std::size_t row = all.size() / static_cast<std::size_t>(a.at(name).shape[0]);
            const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first * row);
            return Floats(begin, begin + static_cast<std::ptrdiff_t>(rows * row));
        };
        x = part("x_t");
        context = part("context");
        map = part("hint");
        const auto all = a.at(times).as<std::int64_t>();
        t.assign(all.begin() + static_cast<std::ptrdiff_t>(first),
                 all.begin() + static_cast<std::ptrdiff_t>(first + rows));
        n = static_cast<std::int64_t>(rows);
        length = a.at("context").shape[1];
        width = a.at("context").shape[2];
        std::copy_n(a.at("x_t").shape.begin() + 1, 3, latent);
        std::copy_n(a.at("hint").shape.begin() + 1, 3, grid);
    }
};

Evaluation evaluate(fi_net *net, const Inputs &in, const std::vector<double> &strengths = {},
                    bool control = true) {
    std::int64_t hint_shape[3], shapes[32][3];
    std::int32_t count = 0;
    demand(backend,
           backend->residual_shapes(net, hint_shape, shapes, 32, &count, in.latent, in.grid),
           "residual_shapes");
    Evaluation out;
    out.prediction.resize(in.x.size());
    out.hint.resize(static_cast<std::size_t>(in.n * hint_shape[0] * hint_shape[1] * hint_shape[2]));
    std::vector<float *> pointers;
    std::vector<std::int64_t> sizes;
    for (std::int32_t i = 0; control && i < count; i++) {
        sizes.push_back(in.n * shapes[i][0] * shapes[i][1] * shapes[i][2]);
        out.residuals.emplace_back(static_cast<std::size_t>(sizes.back()));
    }
    for (Floats &residual : out.residuals)
        pointers.push_back(residual.data());
    demand(backend,
           backend->denoise(net, out.prediction.data(), out.hint.data(),
                            static_cast<std::int64_t>(out.hint.size()), pointers.data(),
                            sizes.data(), static_cast<std::int32_t>(sizes.size()), in.x.data(),
                            in.t.data(), in.context.data(), in.length, in.width, in.map.data(),
                            in.n, in.latent, in.grid, 0,
                            strengths.empty() ? nullptr : strengths.data(),
                            static_cast<std::int32_t>(strengths.size()), !control),
           "denoise");
    return out;
}

void test_evaluations(const std::string &set, fi_net *net, const Arrays &gold) {
    const Inputs in(gold, 0, 3);
    const Evaluation all = evaluate(net, in);
    const auto apart = [&gold](const Floats &field, const std::string &name) {
        return scaled(kept(field, gold.at(name)), gold.at(name).floats());
    };
    if (gold.count("guided_hint"))
        check(set + " hint", apart(all.hint, "guided_hint"), 1e-6);
    for (std::size_t i = 0; i < all.residuals.size(); i++) {
        char name[32];
        std::snprintf(name, sizeof name, "residual_%02zu", i);
        if (gold.count(name))
            check(set + " " + name, apart(all.residuals[i], name), 1e-5);
    }
    std::vector<double> guess, middle(all.residuals.size(), 0.0);
    for (std::size_t i = 0; i < all.residuals.size(); i++)
        guess.push_back(std::pow(0.825, double(all.residuals.size() - 1 - i)));
    middle.back() = 1.0;
    const std::vector<double> half(all.residuals.size(), 0.5);
    check(set + " eps", scaled(all.prediction, gold.at("eps").floats()), 1e-5);
    const std::pair<const char *, std::vector<double>> scaled_sets[] = {
        {"eps_strength05", half}, {"eps_guess", guess}, {"eps_only_mid", middle}};
    for (const auto &[name, strengths] : scaled_sets)
        if (gold.count(name))
            check(set + " " + name,
                  scaled(evaluate(net, in, strengths).prediction, gold.at(name).floats()), 1e-5);
    if (gold.count("eps_nocontrol"))
        check(set + " eps_nocontrol",
              scaled(evaluate(net, in, {}, false).prediction, gold.at("eps_nocontrol").floats()),
              1e-5);
    if (gold.count("eps_t_swapped")) {
        Inputs swapped = in;
        std::reverse(swapped.t.begin(), swapped.t.end());
        check(set + " eps_t_swapped",
              scaled(evaluate(net, swapped).prediction, gold.at("eps_t_swapped").floats()), 1e-5);
    }
    /* Other batch sizes meet weights that were packed for three rows. */
    Floats single;
    for (std::size_t i = 0; i < 3; i++) {
        const Floats row = evaluate(net, Inputs(gold, i, 1)).prediction;
        single.insert(single.end(), row.begin(), row.end());
    }
    check(set + " eps, row by row", scaled(single, gold.at("eps").floats()), 1e-5);
}

/* One run of the sampler with the tables of ddim.npz. */
struct Run {
    int steps = 5;
    double scale = 1.75, hint_scale = 1.0, strength = 1.0;
    bool guess = false, eta1 = false, v = false;
    std::int64_t negative_rows = 77; /* the negative prompt may be shorter */
    const char *start = "x_T";
    Floats x, x0; /* traces */
    std::vector<std::uint8_t> bytes;

    Floats draw(fi_net *net, const Arrays &gold, int only_step = -1) {
        const std::string suffix = std::to_string(steps);
        const auto reversed = [](auto values) {
            std::reverse(values.begin(), values.end());
            return values;
        };
        const auto t = reversed(gold.at("timesteps_S" + suffix).as<std::int64_t>());
        const auto alpha = reversed(gold.at("alphas_S" + suffix).doubles());
        const auto previous = reversed(gold.at("alphas_prev_S" + suffix).doubles());
        const auto sigma =
            reversed(gold.at((eta1 ? "sigmas_eta1_S" : "sigmas_eta0_S") + suffix).doubles());
        const Floats c = gold.at("context_cond").floats(), u = gold.at("context_uncond").floats(),
                     map = gold.at("hint").floats(), noise = gold.at(start).floats();
        fi_sampler_plan plan = {};
        plan.steps = steps;
        plan.timesteps = t.data();
        plan.alpha = alpha.data();
        plan.alpha_prev = previous.data();
        plan.sigma = sigma.data();
        plan.prediction = v;
        plan.scale = scale;
        plan.hint_scale = hint_scale;
        plan.guess_mode = guess;
        plan.strength = strength;
        plan.context = c.data();
        plan.uncontext = scale == 1.0 && hint_scale == 1.0 ? nullptr : u.data();
        plan.context_rows = 77;
        plan.uncontext_rows = negative_rows;
        plan.context_dim = gold.at("context_cond").shape[2];
        std::copy_n(gold.at("x_T").shape.begin() + 1, 3, plan.latent);
        std::copy_n(gold.at("hint").shape.begin() + 1, 3, plan.map);
        plan.latent_scale = 0.18215;
        fi_sampler *sampler = nullptr;
        demand(backend, backend->sampler_create(&sampler, net, &plan), "sampler_create");
        demand(backend, backend->sampler_hints(sampler, map.data(), 1), "sampler_hints");
        const std::int64_t lanes = gold.at(start).shape[0];
        const std::vector<std::int64_t> index(static_cast<std::size_t>(lanes), 0);
        demand(backend, backend->sampler_start(sampler, noise.data(), index.data(), lanes),
               "sampler_start");
        const Floats step_noise = eta1 ? gold.at("eta1_noise_S10").floats() : Floats();
        x.clear();
        x0.clear();
        for (int i = 0; i < steps; i++) {
            if (only_step >= 0 && i != only_step)
                continue;
            Floats now(noise.size()), clean(noise.size());
            const float *add =
                eta1 ? step_noise.data() + static_cast<std::size_t>(i) * noise.size() : nullptr;
            demand(backend, backend->sampler_step(sampler, i, add, now.data(), clean.data()),
                   "sampler_step");
            x.insert(x.end(), now.begin(), now.end());
            x0.insert(x0.end(), clean.begin(), clean.end());
        }
        Floats z(noise.size());
        demand(backend, backend->sampler_latents(sampler, z.data()), "sampler_latents");
        const std::int64_t image[3] = {3, plan.latent[1] * 8, plan.latent[2] * 8};
        bytes.resize(static_cast<std::size_t>(lanes * 3 * image[1] * image[2]));
        demand(backend, backend->sampler_decode(sampler, bytes.data(), nullptr, 0, image),
               "sampler_decode");
        backend->sampler_destroy(sampler);
        return z;
    }
};

void test_sampling(fi_net *net, const Arrays &gold) {
    for (const int steps : {5, 10, 50})
        for (const char *scale : {"1", "1.75", "8"})
            for (const int guess : {0, 1}) {
                Run run;
                run.steps = steps;
                run.scale = std::atof(scale);
                run.guess = guess != 0;
                const std::string name =
                    "z_S" + std::to_string(steps) + "_g" + scale + "_guess" + std::to_string(guess);
                if (!gold.count(name))
                    continue;
                check("tiny " + name, scaled(run.draw(net, gold), gold.at(name).floats()),
                      run.scale > 2 ? 3e-5 : 1e-5);
            }
    Run half;
    half.strength = 0.5;
    check("tiny strength 0.5",
          scaled(half.draw(net, gold), gold.at("z_S5_g1.75_strength0.5").floats()), 1e-5);
    half.guess = true;
    check("tiny strength 0.5, guess mode",
          scaled(half.draw(net, gold), gold.at("z_S5_g1.75_guess1_strength0.5").floats()), 1e-5);
    Run pair;
    pair.start = "x_T_pair";
    check("tiny two lanes, one map",
          scaled(pair.draw(net, gold), gold.at("z_S5_g1.75_pair").floats()), 1e-5);
    Run eta;
    eta.steps = 10;
    eta.eta1 = true;
    check("tiny eta 1", scaled(eta.draw(net, gold), gold.at("z_S10_g1.75_eta1").floats()), 1e-5);
    Run trace;
    trace.draw(net, gold);
    check("tiny trace x", scaled(trace.x, gold.at("trace_x_S5_g1.75").floats()), 1e-5);
    check("tiny trace x0", scaled(trace.x0, gold.at("trace_x0_S5_g1.75").floats()), 1e-5);
}

/* Guidance with a hint scale, a short negative prompt and v-prediction: one step against the same
 * formula on single evaluations. */
void test_guidance(fi_net *net, const Arrays &gold) {
    Arrays inputs;
    inputs["x_t"] = gold.at("x_T");
    inputs["hint"] = gold.at("hint");
    inputs["context"] = gold.at("context_cond");
    Array times;
    times.shape = {1};
    const std::int64_t t = gold.at("timesteps_S5").as<std::int64_t>().back();
    times.bytes.assign(reinterpret_cast<const char *>(&t), sizeof t);
    inputs["t"] = times;
    const Inputs conditional(inputs, 0, 1);
    inputs["context"] = gold.at("context_uncond");
    Inputs negative(inputs, 0, 1);
    const double a = gold.at("alphas_S5").doubles().back();
    const struct {
        const char *name;
        double scale, hint_scale;
        std::int64_t rows;
        bool v;
    } cases[] = {
        {"hint scale 1.5", 1.75, 1.5, 77, false},
        {"hint scale 2, scale 1", 1.0, 2.0, 77, false},
        {"hint scale 0", 1.75, 0.0, 77, false},
        {"scale 0", 0.0, 1.0, 77, false},
        {"short negative prompt", 1.75, 1.0, 9, false},
        {"short prompt, hint scale", 3.0, 1.5, 9, false},
        {"v-prediction", 1.75, 1.0, 77, true},
    };
    for (const auto &item : cases) {
        negative.length = item.rows;
        Inputs unhinted = negative;
        std::fill(unhinted.map.begin(), unhinted.map.end(), 0.f);
        const Floats ec = evaluate(net, conditional).prediction,
                     eu = evaluate(net, negative).prediction,
                     e0 = evaluate(net, unhinted).prediction;
        Floats wanted;
        for (std::size_t i = 0; i < ec.size(); i++) {
            const double e = eu[i] + item.scale * (double(ec[i]) - eu[i]) +
                             (item.hint_scale - 1) * (double(eu[i]) - e0[i]);
            const double x = conditional.x[i];
            wanted.push_back(static_cast<float>(item.v
                                                    ? std::sqrt(a) * x - std::sqrt(1 - a) * e
                                                    : (x - std::sqrt(1 - a) * e) / std::sqrt(a)));
        }
        Run run;
        run.scale = item.scale;
        run.hint_scale = item.hint_scale;
        run.negative_rows = item.rows;
        run.v = item.v;
        run.draw(net, gold, 0);
        check(std::string("guidance: ") + item.name, scaled(run.x0, wanted), 1e-5);
    }
}

void test_autoencoder(fi_net *net, const std::string &reference) {
    const Arrays gold = read_npz(reference + "/decode.npz");
    for (const std::string suffix : {"", "_small"}) {
        Floats z = gold.at("z" + suffix).floats();
        for (float &value : z)
            value = value / 0.18215f;
        const Array &image = gold.at("image" + suffix), &levels = gold.at("image" + suffix + "_u8");
        Floats floats(levels.bytes.size());
        std::vector<std::uint8_t> bytes(levels.bytes.size());
        const std::int64_t size[3] = {3, levels.shape[1], levels.shape[2]};
        const std::int64_t *latent = gold.at("z" + suffix).shape.data() + 1;
        demand(
            backend,
            backend->decode(net, nullptr, floats.data(), 1, z.data(), image.shape[0], latent, size),
            "decode");
        check("tiny decode" + suffix, scaled(kept(floats, image), image.floats()), 2e-5);
        demand(
            backend,
            backend->decode(net, bytes.data(), nullptr, 1, z.data(), image.shape[0], latent, size),
            "decode");
        std::size_t apart = 0, rounded = 0;
        int furthest = 0;
        const auto wanted = levels.as<std::uint8_t>();
        for (std::size_t i = 0; i < bytes.size(); i++) {
            apart += bytes[i] != wanted[i];
            furthest = std::max(furthest, std::abs(int(bytes[i]) - int(wanted[i])));
        }
        check("tiny bytes that differ" + suffix, double(apart) / double(bytes.size()), 1e-3);
        check("tiny bytes, furthest" + suffix, furthest, 1);
        /* Rounded bytes: exactly what the floats say, in two float32 roundings. */
        demand(
            backend,
            backend->decode(net, bytes.data(), nullptr, 0, z.data(), image.shape[0], latent, size),
            "decode");
        const std::size_t area = static_cast<std::size_t>(size[1] * size[2]);
        for (std::size_t i = 0; i < bytes.size(); i++) {
            const std::size_t pixel = i / 3 % area, picture = i / 3 / area;
            const volatile float product = floats[(picture * 3 + i % 3) * area + pixel] * 127.5f;
            const volatile float sum = product + 127.5f;
            rounded += bytes[i] != static_cast<std::uint8_t>(
                                       std::nearbyint(std::clamp(float(sum), 0.f, 255.f)));
        }
        check("tiny rounded bytes that differ" + suffix, double(rounded), 0);
    }
    const Arrays codes = read_npz(reference + "/encode.npz");
    const Array &levels = codes.at("image_u8"), &mean = codes.at("mean");
    const std::int64_t size[3] = {3, levels.shape[1], levels.shape[2]};
    const std::size_t area = static_cast<std::size_t>(size[1] * size[2]);
    const auto bytes = levels.as<std::uint8_t>();
    Floats pixels(bytes.size()), m(mean.bytes.size() / 4), v(m.size());
    for (std::size_t i = 0; i < bytes.size(); i++) /* (n, H, W, 3) to (n, 3, H, W) in [-1, 1] */
        pixels[(i / 3 / area * 3 + i % 3) * area + i / 3 % area] = float(bytes[i]) / 127.5f - 1.f;
    demand(backend,
           backend->encode(net, m.data(), v.data(), pixels.data(), levels.shape[0], size,
                           mean.shape.data() + 1),
           "encode");
    check("tiny encode mean", scaled(m, mean.floats()), 1e-5);
    check("tiny encode logvar", scaled(v, codes.at("logvar").floats()), 1e-5);
}

void test_packing(const std::string &bundle, const Arrays &gold) {
    fi_net *packed = open_net(backend, bundle, FEATINV_DTYPE_F32);
    setenv("FEATINV_PACK", "0", 1);
    fi_net *plain = open_net(backend, bundle, FEATINV_DTYPE_F32);
    unsetenv("FEATINV_PACK");
    const Inputs in(gold, 0, 3);
    const Floats reference = evaluate(plain, in).prediction;
    check("packed against plain", scaled(evaluate(packed, in).prediction, reference), 1e-5);
    check("plain against the recording", scaled(reference, gold.at("eps").floats()), 1e-5);
    const Floats alone = evaluate(packed, in).prediction;
    Floats together[2];
    std::thread threads[2];
    for (int i = 0; i < 2; i++)
        threads[i] = std::thread([&, i] { together[i] = evaluate(packed, in).prediction; });
    for (std::thread &thread : threads)
        thread.join();
    check("two threads, one net", std::max(scaled(together[0], alone), scaled(together[1], alone)),
          1e-5);
    backend->net_destroy(packed);
    backend->net_destroy(plain);
}

void test_bf16(const std::string &bundle, const Arrays &gold) {
    fi_net *net = open_net(backend, bundle, FEATINV_DTYPE_BF16);
    const double figure =
        scaled(evaluate(net, Inputs(gold, 0, 3)).prediction, gold.at("eps").floats());
    check("bf16 eps", figure, 5e-2);
    check_true("bf16 is not float32", figure > 1e-4);
    backend->net_destroy(net);
}

void test_refusals(const std::string &tiny, const Arrays &eps, const Arrays &ddim) {
    fi_net *net = nullptr;
    check_refused("cpu:1", backend->net_create(&net, FI_DEVICE_CPU, 1, FEATINV_DTYPE_F32, 0),
                  FEATINV_ERROR_DEVICE, "cpu:1");
    check_refused("cuda:99", backend->net_create(&net, FI_DEVICE_CUDA, 99, FEATINV_DTYPE_F32, 0),
                  FEATINV_ERROR_DEVICE, "cuda:99");
    check_refused("fp16 on a CPU",
                  backend->net_create(&net, FI_DEVICE_CPU, 0, FEATINV_DTYPE_F16, 0),
                  FEATINV_ERROR_ARGUMENT, "fp16");
    check_refused("dtype 77", backend->net_create(&net, FI_DEVICE_CPU, 0, 77, 0),
                  FEATINV_ERROR_ARGUMENT, "77");
    demand(backend, backend->net_create(&net, FI_DEVICE_CPU, 0, FEATINV_DTYPE_F32, 0),
           "net_create");
    const std::string junk = "PK\x03\x04 this is no archive";
    check_refused("junk program",
                  backend->program_load(net, FI_PROGRAM_UNET, junk.data(), junk.size()),
                  FEATINV_ERROR_BUNDLE, "unet.ts");
    const std::string half = read_file(tiny + "/hint.ts").substr(0, 2000);
    check_refused("half a program",
                  backend->program_load(net, FI_PROGRAM_HINT, half.data(), half.size()),
                  FEATINV_ERROR_BUNDLE, "hint.ts");
    check_refused("no program", backend->program_finish(net, FI_PROGRAM_UNET),
                  FEATINV_ERROR_INTERNAL, "not loaded");
    const std::string hint = read_file(tiny + "/hint.ts");
    demand(backend, backend->program_load(net, FI_PROGRAM_HINT, hint.data(), hint.size()), "load");
    const char *key = nullptr;
    const std::int64_t *shape = nullptr;
    std::int32_t dims = 0;
    demand(backend, backend->program_tensor(net, FI_PROGRAM_HINT, 0, &key, &shape, &dims),
           "tensor");
    void *memory = nullptr;
    check_refused("a weight of the wrong size",
                  backend->weight_memory(net, key, FEATINV_DTYPE_F32, &memory, 4),
                  FEATINV_ERROR_BUNDLE, key);
    demand(backend, backend->weight_memory(net, "nobody.wants", FEATINV_DTYPE_F32, &memory, 4),
           "weight_memory");
    check_true("an unknown key is not wanted", memory == nullptr);
    backend->net_destroy(net);
    std::string text;
    try {
        open_net(backend, tiny, FEATINV_DTYPE_F32, "control_model.input_hint_block.block.1.bias");
    } catch (const std::exception &error) {
        text = error.what();
    }
    check_true("a missing weight is named: " + text,
               text.find("control_model.input_hint_block.block.1.bias") != std::string::npos);

    net = open_net(backend, tiny, FEATINV_DTYPE_F32);
    Inputs in(eps, 0, 1);
    Floats out(in.x.size());
    const double one = 1.0;
    const auto denoise = [&](const double *strengths) {
        return backend->denoise(net, out.data(), nullptr, 0, nullptr, nullptr, 0, in.x.data(),
                                in.t.data(), in.context.data(), in.length, in.width, in.map.data(),
                                1, in.latent, in.grid, 0, strengths, 1, 0);
    };
    check_refused("one strength for many residuals", denoise(&one), FEATINV_ERROR_ARGUMENT, "1");
    in.width = 7;
    check_refused("a context of the wrong width", denoise(nullptr), FEATINV_ERROR_COMPUTE,
                  "libtorch");
    const std::int64_t odd[3] = {3, 100, 100}, latent[3] = {4, 8, 8};
    Floats z(256), pixels(30000);
    check_refused("an image that the decoder does not draw",
                  backend->decode(net, nullptr, pixels.data(), 0, z.data(), 1, latent, odd),
                  FEATINV_ERROR_BUNDLE, "(1, 3, 64, 64)");
    const std::int64_t right[3] = {3, 64, 64};
    z[5] = NAN;
    std::vector<std::uint8_t> bytes(3 * 64 * 64);
    check_refused("latents that are not finite",
                  backend->decode(net, bytes.data(), nullptr, 0, z.data(), 1, latent, right),
                  FEATINV_ERROR_COMPUTE, "not finite");
    check_refused("no backbone",
                  backend->backbone(net, nullptr, nullptr, z.data(), 1, right, right, 1),
                  FEATINV_ERROR_UNSUPPORTED, "backbone.ts");
    text.clear();
    try {
        Run run;
        run.guess = true;
        run.hint_scale = 2;
        run.draw(net, ddim);
    } catch (const std::exception &error) {
        text = error.what();
    }
    check_true("guess mode with a hint scale is refused: " + text,
               text.find("hint scale") != std::string::npos);
    const std::int64_t huge[3] = {4, 1 << 24, 1 << 24};
    std::int32_t count = 0;
    check_refused("out of memory",
                  backend->residual_shapes(net, nullptr, nullptr, 0, &count, huge, in.grid),
                  FEATINV_ERROR_MEMORY, "memory");
    backend->net_destroy(net);
}

void test_linear_algebra() {
    const double a[] = {4, 1, 2, 1, 5, 3, 2, 3, 6}, b[] = {1, 2, 3, 4, 5, 6};
    double c[6], values[3], vectors[9], factor[9];
    demand(backend, backend->gemm(c, a, b, 3, 2, 3, 0, 0), "gemm");
    const double ab[] = {17, 24, 31, 40, 41, 52}, ba[] = {4 + 3 + 10, 1 + 15 + 15, 2 + 9 + 30};
    double apart = 0;
    for (int i = 0; i < 6; i++)
        apart = std::max(apart, std::fabs(c[i] - ab[i]));
    demand(backend, backend->gemm(c, b, a, 2, 3, 3, 1, 1), "gemm"); /* bᵀ aᵀ = (a b)ᵀ */
    for (int i = 0; i < 3; i++)
        apart = std::max(apart, std::fabs(c[i] - ba[i]));
    check("gemm", apart, 1e-12);
    demand(backend, backend->eigh(values, vectors, a, 3), "eigh");
    apart = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            double sum = 0;
            for (int k = 0; k < 3; k++)
                sum += vectors[3 * i + k] * values[k] * vectors[3 * j + k];
            apart = std::max(apart, std::fabs(sum - a[3 * i + j]));
        }
    check("eigh: columns rebuild the matrix", apart, 1e-12);
    check_true("eigh: ascending", values[0] <= values[1] && values[1] <= values[2]);
    double singular[2];
    demand(backend, backend->singular_values(singular, b, 3, 2), "singular_values");
    check("singular values", std::fabs(singular[0] * singular[0] + singular[1] * singular[1] - 91),
          1e-12);
    std::int32_t ok = 0;
    demand(backend, backend->cholesky(factor, &ok, a, 3), "cholesky");
    check_true("cholesky: positive definite", ok == 1);
    check("cholesky: lower", std::fabs(factor[0] - 2) + std::fabs(factor[1]) + std::fabs(factor[2]),
          1e-12);
    const double indefinite[] = {1, 2, 2, 1};
    demand(backend, backend->cholesky(factor, &ok, indefinite, 2), "cholesky");
    check_true("cholesky: indefinite is told, not failed", ok == 0);
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 6) {
        std::fprintf(stderr, "usage: %s BACKEND.so LIBTORCH REFERENCE TINY WIDE\n", argv[0]);
        return 2;
    }
    try {
        const std::string reference = argv[3], tiny = argv[4], wide = argv[5];
        backend = open_backend(argv[1], argv[2]);
        char text[512];
        demand(backend, backend->describe(text, sizeof text), "describe");
        std::printf("%s\n", text);
        const Arrays eps = read_npz(reference + "/eps.npz"),
                     ddim = read_npz(reference + "/ddim.npz");
        fi_net *net = open_net(backend, tiny, FEATINV_DTYPE_F32);
        test_evaluations("tiny", net, eps);
        test_sampling(net, ddim);
        test_guidance(net, ddim);
        test_autoencoder(net, reference);
        backend->net_destroy(net);
        test_bf16(tiny, eps);
        test_refusals(tiny, eps, ddim);
        test_linear_algebra();
        const Arrays wide_eps = read_npz(reference + "/wide_eps.npz");
        net = open_net(backend, wide, FEATINV_DTYPE_F32);
        test_evaluations("wide", net, wide_eps);
        backend->net_destroy(net);
        test_packing(wide, wide_eps);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "FAIL %s\n", error.what());
        return 1;
    }
    std::printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
