// The kernels on the processor: a warp is 32 threads that meet where the source says so, warps and blocks
// follow one another. Told over standard input what to keep and to run (see host.rs), so that the
// sanitizers watch every access of every launch.
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

struct Dim {
    unsigned x = 0, y = 0;
};
static thread_local Dim threadIdx;
static Dim blockIdx, blockDim;

static std::barrier<> meeting(32);
// Two, used in turns: nobody writes one before all have read it and met for the other.
static double exchanged[2][32];
template <typename T> static T exchange(T mine, unsigned from) {
    static thread_local unsigned turn;
    turn ^= 1;
    exchanged[turn][threadIdx.x % 32] = (double)mine;
    meeting.arrive_and_wait();
    return (T)exchanged[turn][from];
}
template <typename T> static T __shfl_sync(unsigned, T mine, unsigned from) { return exchange(mine, from); }
template <typename T> static T __shfl_xor_sync(unsigned, T mine, unsigned by) {
    return exchange(mine, (threadIdx.x % 32) ^ by);
}
static void __syncwarp(unsigned) { meeting.arrive_and_wait(); }
static unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
static float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
template <typename T> static T min(T a, T b) { return b < a ? b : a; }
#define __device__
#define __global__
#include KERNELS

static void get(void* to, size_t bytes) {
    if (fread(to, 1, bytes, stdin) != bytes) exit(feof(stdin) ? 0 : 3);
}
template <typename T> static T get() {
    T value;
    get(&value, sizeof value);
    return value;
}

// Slots by number, each with memory of its own, so that a read beyond one is seen.
static std::map<uint32_t, std::unique_ptr<std::vector<unsigned char>>> slots;
// A place that is told: slot, bytes before it.
static unsigned char* place() {
    uint32_t slot = get<uint32_t>();
    uint64_t offset = get<uint64_t>();
    return slots.at(slot)->data() + offset;
}

struct Args {
    std::vector<uint64_t> values;
    float* f(int i) { return (float*)values[i]; }
    double* d(int i) { return (double*)values[i]; }
    u32* w(int i) { return (u32*)values[i]; }
    u32 u(int i) { return (u32)values[i]; }
    u64 l(int i) { return values[i]; }
    float x(int i) { return __uint_as_float((u32)values[i]); }
};

static const std::map<std::string, std::function<void(Args&)>> kernels = {
    {"noise", [](Args& a) { noise(a.f(0), a.w(1), a.u(2), a.u(3), a.u(4)); }},
    {"drop", [](Args& a) { drop(a.f(0), a.w(1), a.u(2), a.u(3), a.u(4), a.x(5), a.x(6)); }},
    {"bias_leaky", [](Args& a) { bias_leaky(a.f(0), a.f(1), a.u(2), a.u(3)); }},
    {"seed_delta", [](Args& a) { seed_delta(a.f(0), a.f(1), a.f(2), a.x(3), a.f(4), a.u(5), a.u(6)); }},
    {"mask", [](Args& a) { mask(a.f(0), a.f(1), a.u(2), a.u(3)); }},
    {"drop_back", [](Args& a) { drop_back(a.f(0), a.f(1), a.u(2), a.u(3), a.x(4)); }},
    {"energy", [](Args& a) { energy(a.f(0), a.f(1), a.f(2), a.f(3), a.u(4), a.u(5)); }},
    {"centre", [](Args& a) { centre(a.f(0), a.f(1), a.f(2), a.u(3), a.u(4)); }},
    {"centre_on_means",
     [](Args& a) { centre_on_means(a.f(0), a.f(1), a.w(2), a.f(3), a.u(4), a.u(5), a.x(6)); }},
    {"negated_softmax", [](Args& a) { negated_softmax(a.f(0), a.f(1), a.u(2), a.u(3)); }},
    {"scale", [](Args& a) { scale(a.f(0), a.l(1), a.x(2)); }},
    {"zero", [](Args& a) { zero(a.f(0), a.l(1)); }},
    {"white_step", [](Args& a) { white_step(a.f(0), a.f(1), a.u(2), a.u(3), a.x(4), a.x(5)); }},
    {"step_and_project",
     [](Args& a) {
         step_and_project(a.f(0), a.f(1), a.f(2), a.u(3), a.u(4), a.x(5), a.x(6), a.u(7), a.u(8));
     }},
    {"partial_sums", [](Args& a) { partial_sums(a.f(0), a.f(1), a.d(2), a.u(3), a.u(4), a.u(5)); }},
    {"add_sums", [](Args& a) { add_sums(a.d(0), a.f(1), a.u(2), a.u(3)); }},
};

// Kernels whose lanes meet.
static const std::set<std::string> meet = {"energy", "negated_softmax", "step_and_project"};

static void launch(const std::string& name, Args& args, Dim grid, unsigned threads) {
    const auto& kernel = kernels.at(name);
    blockDim = {threads, 1};
    auto blocks = [&](auto&& each) {
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) each(Dim{x, y});
    };
    if (!meet.count(name)) {
        blocks([&](Dim block) {
            blockIdx = block;
            for (unsigned thread = 0; thread < threads; thread++) {
                threadIdx = {thread, 0};
                kernel(args);
            }
        });
        return;
    }
    std::vector<std::thread> lanes;
    for (unsigned lane = 0; lane < 32; lane++)
        lanes.emplace_back([&, lane] {
            blocks([&](Dim block) {
                if (lane == 0) blockIdx = block;
                meeting.arrive_and_wait();
                for (unsigned first = 0; first < threads; first += 32) {
                    threadIdx = {first + lane, 0};
                    kernel(args);
                }
                meeting.arrive_and_wait();
            });
        });
    for (auto& lane : lanes) lane.join();
}

// out = alpha·A·B + beta·out, in double precision.
static void product() {
    // One declaration each: the order in which they are read is that of the declarations.
    float* a = (float*)place();
    float* b = (float*)place();
    float* out = (float*)place();
    uint64_t m = get<uint64_t>();
    uint64_t n = get<uint64_t>();
    uint64_t k = get<uint64_t>();
    uint32_t a_transposed = get<uint32_t>();
    uint32_t b_transposed = get<uint32_t>();
    float alpha = get<float>();
    float beta = get<float>();
    for (uint64_t i = 0; i < m; i++)
        for (uint64_t j = 0; j < n; j++) {
            double sum = 0.0;
            for (uint64_t l = 0; l < k; l++)
                sum += (double)a[a_transposed ? l * m + i : i * k + l] * (double)b[b_transposed ? j * k + l : l * n + j];
            double before = beta == 0.0f ? 0.0 : (double)(beta * out[i * n + j]);
            out[i * n + j] = (float)((double)alpha * sum + before);
        }
}

int main() {
    for (;;) {
        char what = get<char>();
        if (what == 'r') {  // reserve: slot, bytes; filled with what is not a number
            uint32_t slot = get<uint32_t>();
            slots[slot] = std::make_unique<std::vector<unsigned char>>(get<uint64_t>(), 0xff);
        } else if (what == 'p') {  // put: slot, bytes, values
            uint32_t slot = get<uint32_t>();
            uint64_t bytes = get<uint64_t>();
            if (bytes > slots.at(slot)->size()) return 4;
            get(slots.at(slot)->data(), bytes);
        } else if (what == 't') {  // take: slot, bytes
            uint32_t slot = get<uint32_t>();
            uint64_t bytes = get<uint64_t>();
            if (bytes > slots.at(slot)->size()) return 4;
            fwrite(slots.at(slot)->data(), 1, bytes, stdout);
            fflush(stdout);
        } else if (what == 'm') {
            product();
        } else if (what == 'k') {  // launch: name, grid, threads, arguments
            std::string name(get<uint32_t>(), ' ');
            get(name.data(), name.size());
            Dim grid;
            grid.x = get<uint32_t>();
            grid.y = get<uint32_t>();
            uint32_t threads = get<uint32_t>();
            Args args;
            for (uint32_t left = get<uint32_t>(); left > 0; left--) {
                if (get<char>() == 'a') {
                    args.values.push_back((uint64_t)place());
                } else {
                    args.values.push_back(get<uint64_t>());
                }
            }
            if (!kernels.count(name)) return 5;
            launch(name, args, grid, threads);
        } else {
            return 6;
        }
    }
}
