/* Seconds a sampling step and a decoded image, with the weights packed and plain.
 *
 *     shim_bench BACKEND.so LIBTORCH_FOLDER BUNDLE LANES THREADS [bf16]
 *
 * FEATINV_PACK=0 gives the plain figure. Sizes come from the bundle's manifest. */
#include <chrono>

#include <sys/resource.h>

#include "support.hpp"

namespace {

double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

double peak_gib() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return double(usage.ru_maxrss) / (1024.0 * 1024.0);
}

std::int64_t number(const std::string &manifest, const std::string &key) {
    const std::size_t at = manifest.find("\"" + key + "\"");
    return at == std::string::npos ? 0 : numbers(manifest.substr(at + key.size() + 2, 40)).at(0);
}

Floats noise(std::int64_t count) {
    Floats values(static_cast<std::size_t>(count));
    std::uint32_t state = 1;
    for (float &value : values) {
        state = state * 1664525u + 1013904223u;
        value = static_cast<float>(state >> 8) / 4194304.f - 2.f;
    }
    return values;
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 6) {
        std::fprintf(stderr, "usage: %s BACKEND.so LIBTORCH BUNDLE LANES THREADS [bf16]\n", argv[0]);
        return 2;
    }
    try {
        const fi_backend *backend = open_backend(argv[1], argv[2]);
        const std::string manifest = read_file(std::string(argv[3]) + "/manifest.json");
        const std::int64_t lanes = std::atoi(argv[4]);
        demand(backend, backend->set_threads(std::atoi(argv[5])), "set_threads");
        double start = seconds();
        fi_net *net =
            open_net(backend, argv[3], argc > 6 ? FEATINV_DTYPE_BF16 : FEATINV_DTYPE_F32);
        std::printf("load %.2f s, peak %.2f GiB\n", seconds() - start, peak_gib());

        const Shape image = numbers(between(manifest, "\"image\"", '[', ']'));
        const Shape latent = numbers(between(manifest, "\"latent\"", '[', ']'));
        fi_sampler_plan plan = {};
        const std::vector<std::int64_t> t(8, 500);
        const std::vector<double> alpha(8, 0.5), previous(8, 0.6), sigma(8, 0.0);
        plan.steps = 8;
        plan.timesteps = t.data();
        plan.alpha = alpha.data();
        plan.alpha_prev = previous.data();
        plan.sigma = sigma.data();
        plan.scale = 1.75;
        plan.hint_scale = plan.strength = 1.0;
        plan.context_dim = std::atoi(std::getenv("CONTEXT") ? std::getenv("CONTEXT") : "768");
        plan.context_rows = plan.uncontext_rows = 77;
        const Floats c = noise(77 * plan.context_dim), u = c;
        plan.context = c.data();
        plan.uncontext = u.data();
        std::copy_n(latent.begin(), 3, plan.latent);
        const std::string features = manifest.substr(manifest.find("\"features\": {"));
        plan.map[0] = number(features, "channels");
        plan.map[1] = number(features, "height");
        plan.map[2] = number(features, "width");
        plan.latent_scale = 0.18215;
        fi_sampler *sampler = nullptr;
        demand(backend, backend->sampler_create(&sampler, net, &plan), "sampler_create");
        const Floats map = noise(plan.map[0] * plan.map[1] * plan.map[2]);
        const Floats x = noise(lanes * latent[0] * latent[1] * latent[2]);
        const std::vector<std::int64_t> index(static_cast<std::size_t>(lanes), 0);
        demand(backend, backend->sampler_hints(sampler, map.data(), 1), "sampler_hints");
        demand(backend, backend->sampler_start(sampler, x.data(), index.data(), lanes), "start");
        double best = 1e9;
        for (std::int32_t i = 0; i < 8; i++) {
            start = seconds();
            demand(backend, backend->sampler_step(sampler, i, nullptr, nullptr, nullptr), "step");
            const double took = seconds() - start;
            best = std::min(best, took);
            if (i == 0)
                std::printf("first step %.3f s, peak %.2f GiB\n", took, peak_gib());
        }
        std::printf("best of 8 steps %.4f s at %lld lanes\n", best, static_cast<long long>(lanes));
        std::vector<std::uint8_t> bytes(
            static_cast<std::size_t>(lanes * image[0] * image[1] * image[2]));
        start = seconds();
        demand(backend, backend->sampler_decode(sampler, bytes.data(), nullptr, 0, image.data()),
               "sampler_decode");
        std::printf("decode %.3f s an image, peak %.2f GiB\n",
                    (seconds() - start) / double(lanes), peak_gib());
        backend->sampler_destroy(sampler);
        backend->net_destroy(net);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
