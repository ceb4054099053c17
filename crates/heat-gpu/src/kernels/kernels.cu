// Everything of a plan but the matrix products. Compiled for the card at hand when it is first used, and
// for the processor by the tests. Without fused multiply-adds (-fmad=false): what is done element by
// element then has the bits that the processor's code gives.
//
// Matrices lie row by row without gaps. "One thread an element" means a grid over all elements.

typedef unsigned int u32;
typedef unsigned long long u64;

#define SLOPE 0.2f
#define BLOCK_ROWS 64u
#define WARP 32u
#define ALL 0xffffffffu
// Responsibilities that vanish beside the rounding of the largest.
#define NEGLIGIBLE 1e-15f

static __device__ size_t element() { return (size_t)blockIdx.x * blockDim.x + threadIdx.x; }
// Where a warp works on a row: which row.
static __device__ u32 warp_row() { return blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP; }
static __device__ u32 lane() { return threadIdx.x % WARP; }
static __device__ float leaky_slope(float a) { return a > 0.0f ? 1.0f : SLOPE; }

// ---- Random streams: ChaCha8 keyed by (seed, purpose, a, b), as in heat-ood's `math::rng`. ----

static __device__ u32 rotated(u32 x, u32 by) { return (x << by) | (x >> (32u - by)); }

static __device__ void quarter(u32* s, u32 a, u32 b, u32 c, u32 d) {
    s[a] += s[b]; s[d] = rotated(s[d] ^ s[a], 16);
    s[c] += s[d]; s[b] = rotated(s[b] ^ s[c], 12);
    s[a] += s[b]; s[d] = rotated(s[d] ^ s[a], 8);
    s[c] += s[d]; s[b] = rotated(s[b] ^ s[c], 7);
}

// Words 16·counter … of the stream that `key` names with its last part replaced by `name`.
static __device__ void words(const u32* key, u64 name, u64 counter, u32* out) {
    u32 start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u,
                     key[0], key[1], key[2], key[3], key[4], key[5], (u32)name, (u32)(name >> 32),
                     (u32)counter, (u32)(counter >> 32), 0u, 0u};
    for (u32 i = 0; i < 16; i++) out[i] = start[i];
    for (u32 round = 0; round < 4; round++) {
        quarter(out, 0, 4, 8, 12); quarter(out, 1, 5, 9, 13);
        quarter(out, 2, 6, 10, 14); quarter(out, 3, 7, 11, 15);
        quarter(out, 0, 5, 10, 15); quarter(out, 1, 6, 11, 12);
        quarter(out, 2, 7, 8, 13); quarter(out, 3, 4, 9, 14);
    }
    for (u32 i = 0; i < 16; i++) out[i] += start[i];
}

static __device__ u64 first_block(const u32* key) { return (u64)key[6] | (u64)key[7] << 32; }

// Natural logarithm of a normal positive number (Cephes `logf`).
static __device__ float log_of(float x) {
    u32 shifted = __float_as_uint(x) - 0x3f3504f3u;
    float exponent = (float)((int)shifted >> 23);
    float m = __uint_as_float((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float p = 7.0376836e-2f;
    p = p * m + -1.151461e-1f;
    p = p * m + 1.1676999e-1f;
    p = p * m + -1.2420141e-1f;
    p = p * m + 1.4249323e-1f;
    p = p * m + -1.6668058e-1f;
    p = p * m + 2.0000715e-1f;
    p = p * m + -2.5e-1f;
    p = p * m + 3.333333e-1f;
    float z = m * m;
    return (m * z * p - 0.5f * z) + m + exponent * 0.693147182464599609375f;
}

// sin πy for |y| ≤ ½.
static __device__ float sin_pi(float y) {
    float t = 3.1415927410125732421875f * y;
    float q = t * t;
    float p = -2.5052108e-8f;
    p = p * q + 2.755732e-6f;
    p = p * q + -1.984127e-4f;
    p = p * q + 8.333334e-3f;
    p = p * q + -1.6666667e-1f;
    return t + t * q * p;
}

// Standard normals of step `t` (Box and Muller, 1958), `[rows, width]`. Rows come in blocks of 64 with a
// stream each; a stream's normals in chunks of 512, of which 256 words give radii and 256 angles. One
// thread makes 32: threads in x of a block of rows, blocks in y.
extern "C" __global__ void noise(float* out, const u32* key, u32 rows, u32 width, u32 t) {
    u32 block = blockIdx.y;
    u32 rows_here = min(BLOCK_ROWS, rows - block * BLOCK_ROWS);
    size_t here = (size_t)rows_here * width;
    size_t chunk = element() / 16, part = element() % 16;
    size_t first = chunk * 512 + part * 16;
    if (first >= here) return;
    u64 name = (first_block(key) + block) << 32 | t;
    u32 a[16], b[16];
    words(key, name, chunk * 32 + part, a);
    words(key, name, chunk * 32 + 16 + part, b);
    float* rows_out = out + (size_t)block * BLOCK_ROWS * width;
    for (u32 i = 0; i < 16; i++) {
        float u = ((float)a[i] + 1.0f) * (1.0f / 4294967296.0f);
        float radius = sqrtf(fmaxf(-2.0f * log_of(u), 0.0f));
        float x = (float)(int)b[i] * (1.0f / 2147483648.0f);
        float size = fabsf(x);
        float folded = size > 0.5f ? 1.0f - size : size;
        size_t at = first + i;
        if (at < here) rows_out[at] = radius * sin_pi(0.5f - size);
        if (at + 256 < here) rows_out[at + 256] = radius * copysignf(sin_pi(folded), x);
    }
}

// Dropout of a layer. A row's uniforms begin with a new chunk of 256 words. One thread has 16 columns:
// threads in x of a block of 64 rows, blocks in y.
extern "C" __global__ void drop(float* x, const u32* key, u32 rows, u32 width, u32 layer, float probability,
                                float scale) {
    u32 block = blockIdx.y;
    u32 rows_here = min(BLOCK_ROWS, rows - block * BLOCK_ROWS);
    u32 groups = (width + 15) / 16;
    size_t row = element() / groups, group = element() % groups;
    if (row >= rows_here) return;
    u64 chunks = (width + 255) / 256;
    u64 word = 256 * (row * chunks + group / 16) + 16 * (group % 16);
    u32 w[16];
    words(key, (u64)layer << 32 | (first_block(key) + block), word / 16, w);
    float* values = x + ((size_t)block * BLOCK_ROWS + row) * width + group * 16;
    u32 here = min(16u, width - (u32)group * 16);
    for (u32 i = 0; i < here; i++) {
        float u = (float)(w[i] >> 8) * (1.0f / 16777216.0f);
        values[i] = u < probability ? 0.0f : scale * values[i];
    }
}

// ---- The network. ----

// One thread an element.
extern "C" __global__ void bias_leaky(float* x, const float* bias, u32 rows, u32 width) {
    size_t i = element();
    if (i >= (size_t)rows * width) return;
    float v = x[i] + bias[i % width];
    x[i] = v > 0.0f ? v : SLOPE * v;
}

// One thread an element; `seeds` one a row, or null for the same `seed`.
extern "C" __global__ void seed_delta(const float* top, const float* weight, const float* seeds, float seed,
                                      float* out, u32 rows, u32 width) {
    size_t i = element();
    if (i >= (size_t)rows * width) return;
    float s = seeds ? seeds[i / width] : seed;
    out[i] = s * weight[i % width] * leaky_slope(top[i]);
}

// One thread an element.
extern "C" __global__ void mask(float* x, const float* activations, u32 rows, u32 width) {
    size_t i = element();
    if (i >= (size_t)rows * width) return;
    x[i] *= leaky_slope(activations[i]);
}

// One thread an element. What is zero was dropped.
extern "C" __global__ void drop_back(float* x, const float* activations, u32 rows, u32 width, float scale) {
    size_t i = element();
    if (i >= (size_t)rows * width) return;
    x[i] = activations[i] == 0.0f ? 0.0f : scale * x[i];
}

// One warp a row: w·row + b in double precision.
extern "C" __global__ void energy(const float* top, const float* weight, const float* bias, float* out, u32 rows,
                                  u32 width) {
    u32 row = warp_row();
    if (row >= rows) return;
    double sum = 0.0;
    for (u32 i = lane(); i < width; i += WARP) sum += (double)top[(size_t)row * width + i] * (double)weight[i];
    for (u32 by = WARP / 2; by > 0; by /= 2) sum += __shfl_xor_sync(ALL, sum, by);
    if (lane() == 0) out[row] = (float)(sum + (double)bias[0]);
}

// ---- The prior. ----

// One thread an element.
extern "C" __global__ void centre(const float* z, const float* m, float* out, u32 rows, u32 width) {
    size_t i = element();
    if (i >= (size_t)rows * width) return;
    out[i] = z[i] - m[i % width];
}

// One thread an element.
extern "C" __global__ void centre_on_means(const float* z, const float* means, const u32* labels, float* out,
                                           u32 rows, u32 width, float scale) {
    size_t i = element();
    if (i >= (size_t)rows * width) return;
    out[i] = scale * (z[i] - means[(size_t)labels[i / width] * width + i % width]);
}

// One warp a row: −softmax(x + offset), what is negligible as zero.
extern "C" __global__ void negated_softmax(float* x, const float* offset, u32 rows, u32 width) {
    u32 row = warp_row();
    if (row >= rows) return;
    float* values = x + (size_t)row * width;
    float most = __uint_as_float(0xff800000u);
    for (u32 i = lane(); i < width; i += WARP) {
        values[i] += offset[i];
        most = fmaxf(most, values[i]);
    }
    for (u32 by = WARP / 2; by > 0; by /= 2) most = fmaxf(most, __shfl_xor_sync(ALL, most, by));
    float sum = 0.0f;
    for (u32 i = lane(); i < width; i += WARP) {
        values[i] = expf(values[i] - most);
        sum += values[i];
    }
    for (u32 by = WARP / 2; by > 0; by /= 2) sum += __shfl_xor_sync(ALL, sum, by);
    for (u32 i = lane(); i < width; i += WARP) {
        float r = values[i] / sum;
        values[i] = r < NEGLIGIBLE ? 0.0f : -r;
    }
}

// ---- The step. ----

// One thread an element.
extern "C" __global__ void zero(float* x, u64 len) {
    size_t i = element();
    if (i < len) x[i] = 0.0f;
}

// One thread an element.
extern "C" __global__ void scale(float* x, u64 len, float factor) {
    size_t i = element();
    if (i < len) x[i] *= factor;
}

// One thread an element: step·x + eps·noise.
extern "C" __global__ void white_step(float* x, const float* noise, u32 rows, u32 width, float step, float eps) {
    size_t i = element();
    if (i >= (size_t)rows * width) return;
    x[i] = step * x[i] + eps * noise[i];
}

// Divide by the norm, summed in the order of the processor's code: 32 sums of every 32nd square, those in
// order, then what is left over in order.
static __device__ void normalised(float* row, u32 width) {
    u32 whole = width / WARP * WARP;
    float sum = 0.0f;
    for (u32 i = lane(); i < whole; i += WARP) sum += row[i] * row[i];
    float total = 0.0f;
    for (u32 i = 0; i < WARP; i++) total += __shfl_sync(ALL, sum, i);
    float rest = 0.0f;
    for (u32 i = whole; i < width; i++) rest += row[i] * row[i];
    float scale = 1.0f / fmaxf(sqrtf(total + rest), 1e-12f);
    __syncwarp(ALL);
    for (u32 i = lane(); i < width; i += WARP) row[i] *= scale;
    __syncwarp(ALL);
}

// One warp a row: z ← Π(z − step·g − eps·noise). `normalize`: 0 not, 1 the row, 2 its halves each.
extern "C" __global__ void step_and_project(float* z, const float* gradient, const float* noise, u32 rows,
                                            u32 width, float step, float eps, u32 relu, u32 normalize) {
    u32 row = warp_row();
    if (row >= rows) return;
    size_t first = (size_t)row * width;
    for (u32 i = lane(); i < width; i += WARP) {
        float e = noise ? noise[first + i] : 0.0f;
        float v = z[first + i] - (step * gradient[first + i] + eps * e);
        z[first + i] = relu ? fmaxf(v, 0.0f) : v;
    }
    __syncwarp(ALL);
    if (normalize == 1) normalised(z + first, width);
    if (normalize == 2) {
        normalised(z + first, width / 2);
        normalised(z + first + width / 2, width - width / 2);
    }
}

// ---- Sums over rows. ----

// One thread a column and group of `group` rows, groups in y; without weights, 1 each.
extern "C" __global__ void partial_sums(const float* x, const float* weights, double* out, u32 rows, u32 width,
                                        u32 group) {
    size_t column = element();
    if (column >= width) return;
    u32 first = blockIdx.y * group, end = min(first + group, rows);
    double sum = 0.0;
    for (u32 row = first; row < end; row++) {
        double weight = weights ? (double)weights[row] : 1.0;
        sum += weight * (double)x[(size_t)row * width + column];
    }
    out[(size_t)blockIdx.y * width + column] = sum;
}

// One thread a column.
extern "C" __global__ void add_sums(const double* sums, float* out, u32 groups, u32 width) {
    size_t column = element();
    if (column >= width) return;
    double sum = 0.0;
    for (u32 i = 0; i < groups; i++) sum += sums[(size_t)i * width + column];
    out[column] += (float)sum;
}
