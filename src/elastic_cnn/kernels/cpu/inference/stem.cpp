// The stem. The image is copied once into rows of pixels with a border of zeros; there a kernel's row of taps lies in
// one piece (kernel x channels numbers), so the convolution is a `Convolution` of `kernel` taps of that depth. A thread
// computes four rows of the convolution at a time, keeps the last one of the four before, and pools them while they
// lie in its cache: the large map is never written to memory.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstring>

#include "common/operators.h"
#include "common/scratch.h"
#include "common/threads.h"
#include "inference/plan.h"

namespace elastic {

ELASTIC_KERNEL(max_pool, const MaxPool&)  // one row

namespace {

using at::Tensor;

struct Stem {
  int channels, height, width, out;  // of the image, and channels of the result
  int kernel, stride;                // kernel odd, padding kernel / 2
  int conv_height() const { return strided(height, stride); }
  int conv_width() const { return strided(width, stride); }
  int out_height() const { return half(conv_height()); }
  int out_width() const { return half(conv_width()); }
  int64_t scratch(int workers) const;  // numbers
};

constexpr int kPooled = 2;              // rows of the result at a time
constexpr int kRows = 2 * kPooled + 1;  // rows of the convolution that they read

// A row's last window may read half a word beyond it.
int64_t padded_row(const Stem& s) { return int64_t(s.width + s.kernel - 1) * s.channels + kPack - 1; }
int64_t padded_size(const Stem& s) { return round_up(padded_row(s) * (s.height + s.kernel - 1), 64); }
int64_t pixel(const Stem& s) { return pixel_of(s.out); }
int64_t band_size(const Stem& s) { return round_up(kRows * s.conv_width() * pixel(s), 64); }

void copy_row(const Stem& s, const Element* image, const int64_t strides[3], int y, Element* padded) {
  const int border = s.kernel / 2;
  std::memset(padded, 0, padded_row(s) * sizeof(Element));
  if (y < border || y >= s.height + border) return;
  const Element* from = image + (y - border) * strides[1];
  Element* to = padded + border * s.channels;
  for (int c = 0; c < s.channels; c++)
    for (int x = 0; x < s.width; x++) to[x * s.channels + c] = from[c * strides[0] + x * strides[2]];
}

int64_t Stem::scratch(int workers) const { return padded_size(*this) + workers * band_size(*this); }

// An image with any strides, to (out_height, out_width, out) contiguous. `bias` holds whole panels.
void run_stem(const InferenceKernels& kernels, void (*max_pool)(const MaxPool&), const Stem& s, const Element* image,
              const int64_t strides[3], const float* weights, const float* bias, Element* scratch, Element* output,
              const Worker& worker) {
  const Range copied = range_of(s.height + s.kernel - 1, worker);
  for (int y = copied.begin; y < copied.end; y++) copy_row(s, image, strides, y, scratch + y * padded_row(s));
  worker.wait();
  Element* band = scratch + padded_size(s) + worker.index * band_size(s);
  const int64_t row = s.conv_width() * pixel(s);
  const Range mine = range_of(s.out_height(), worker);
  for (int at = mine.begin; at < mine.end; at += kPooled) {
    const int end = std::min(at + kPooled, mine.end);
    // Row r of the convolution lies at band + (r - first) * row, where first = 2 at - 1 may be outside.
    const int first = 2 * at - 1, last = std::min(2 * end, s.conv_height());
    const bool kept = at > mine.begin;
    if (kept) std::memcpy(band, band + 2 * kPooled * row, row * sizeof(Element));
    const int begin = kept ? first + 1 : std::max(first, 0);
    Convolution p{};
    p.in_pixel = int64_t(s.stride) * s.channels;
    p.in_row = s.stride * padded_row(s);
    p.input = scratch + begin * p.in_row;
    p.taps = s.kernel;
    p.tap_row = padded_row(s);
    p.group_width = s.kernel * s.channels;
    p.weights = weights;
    p.bias = bias;
    p.output = band + (begin - first) * row;
    p.out_pixel = pixel(s);
    p.out_row = row;
    p.height = last - begin;
    p.width = s.conv_width();
    p.relu = true;
    kernels.convolution(p, {0, p.height, 0, panels_of(s.out)});
    for (int r = at; r < end; r++) {
      MaxPool pool{};
      for (int i = 0; i < 3; i++) {
        const int from = 2 * r - 1 + i;
        pool.rows[i] = from >= 0 && from < s.conv_height() ? band + (from - first) * row : nullptr;
      }
      pool.pixel = pixel(s);
      pool.width = s.conv_width();
      pool.output = output + int64_t(r) * s.out_width() * s.out;
      pool.out_pixel = s.out;
      pool.channels = s.out;
      max_pool(pool);
    }
  }
  worker.wait();
}

Tensor stem_output(const Tensor& x, const Tensor& weights, const Tensor& bias, int64_t kernel, int64_t stride) {
  check_element_map(x, "x");
  TORCH_CHECK_VALUE(kernel >= 1 && kernel <= 31 && kernel % 2 == 1, "a stem's kernel must be odd and in 1..31, got ",
                    kernel);
  TORCH_CHECK_VALUE(stride >= 1 && stride <= 4, "a stem's stride must lie in 1..4, got ", stride);
  check_beside(bias, x, at::kFloat, "the bias");
  TORCH_CHECK_VALUE(bias.dim() == 1, "the bias must be a vector, got ", bias.sym_sizes());
  check_contiguous(bias, "the bias");
  const c10::SymInt out = bias.sym_size(0);
  const auto panels = out.maybe_as_int(), channels = x.sym_size(1).maybe_as_int();
  TORCH_CHECK_VALUE(!panels || (*panels >= 1 && *panels <= (1 << 16)), "a stem needs 1 to 65536 output channels, got ",
                    out);
  if (panels && channels) check_weights(weights, x, round_up(*panels, kPanel) * kernel * words(kernel * *channels));
  return empty_map(x, {x.sym_size(0), out, half(strided(x.sym_size(2), stride)), half(strided(x.sym_size(3), stride))});
}

Tensor stem(const Tensor& x, const Tensor& weights, const Tensor& bias, int64_t kernel, int64_t stride) {
  const InferenceKernels& kernels = inference_kernels();
  const auto max_pool = max_pool_kernel();
  const Tensor output = stem_output(x, weights, bias, kernel, stride);
  const Stem s{int(x.size(1)), int(x.size(2)), int(x.size(3)), int(bias.numel()), int(kernel), int(stride)};
  const int64_t images = x.size(0), out_step = int64_t(s.out) * s.out_height() * s.out_width();
  const int threads = at::get_num_threads();
  const int64_t wide = round_up(s.out, kPanel);
  const Scratch scratch(words(s.scratch(threads)) + wide);
  float* biases = scratch.data() + words(s.scratch(threads));
  std::fill(biases, biases + wide, 0.f);
  std::copy_n(bias.const_data_ptr<float>(), s.out, biases);
  const int64_t strides[] = {x.stride(1), x.stride(2), x.stride(3)}, step = x.stride(0);
  const Element* image = elements(x);
  Element* to = mutable_elements(output);
  const float* packed = packed_weights(weights);
  parallel(threads, [&](const Worker& worker) {
    for (int64_t i = 0; i < images; i++)
      run_stem(kernels, max_pool, s, image + i * step, strides, packed, biases, scratch.elements(), to + i * out_step,
               worker);
  });
  return output;
}

}  // namespace

ELASTIC_OPERATOR("stem", "(Tensor x, Tensor weights, Tensor bias, int kernel, int stride) -> Tensor", stem, stem_output)

}  // namespace elastic
