// Between the order of a model, (batch, tokens, heads, width), and that of ssd, (batch, chunks, heads, chunk, width) in
// f32, where each head of a chunk is a matrix and the last chunk is filled up with zeros; and the step sizes, with the
// sums of their logarithmic decays a · dt over the segments before and after each token of a chunk.
// A workgroup of 16 × 4 moves four rows: where a row goes is worked out once, not for each of its elements.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::softplus::softplus;
import package::lib::softplus::sigmoid;

struct Params {
  size: u32, tokens: u32, heads: u32, width: u32, chunk: u32, chunks: u32,
  softplus: u32, has_bias: u32, suffix: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read_write> chunked: array<f32>;

// Where element i of (batch, chunks, heads, chunk, width) lies in (batch, tokens, heads, width); -1 past the last token.
fn place(i: u32) -> i32 {
  let column = i % p.width;
  let row = i / p.width;
  let head = row / p.chunk % p.heads;
  let part = row / p.chunk / p.heads;
  let token = part % p.chunks * p.chunk + row % p.chunk;
  if (token >= p.tokens) { return -1; }
  return i32(((part / p.chunks * p.tokens + token) * p.heads + head) * p.width + column);
}

@compute @workgroup_size(16, 4)
fn split(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_id) local: vec3u) {
  let first = (flat_workgroup(group, groups) * 4u + local.y) * p.width;
  if (first >= p.size) { return; }
  let source = place(first);
  for (var column = local.x; column < p.width; column += 16u) {
    if (source < 0) { chunked[first + column] = 0.0; } else { chunked[first + column] = f32(x[u32(source) + column]); }
  }
}

@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(16, 4)
fn merge(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_id) local: vec3u) {
  let first = (flat_workgroup(group, groups) * 4u + local.y) * p.width;
  if (first >= p.size) { return; }
  let target_row = place(first);
  if (target_row < 0) { return; }
  for (var column = local.x; column < p.width; column += 16u) {
    y[u32(target_row) + column] = elem(parts[first + column]);
  }
}

// Step sizes in chunks: dt + bias or softplus of that, width being 1.
@group(0) @binding(1) var<storage, read> dt: array<elem>;
@group(0) @binding(2) var<storage, read> bias: array<elem>; // (heads), read only where has_bias is 1
@group(0) @binding(3) var<storage, read_write> steps: array<f32>;

fn raw_step(source: i32, i: u32) -> f32 {
  if (p.has_bias == 0u) { return f32(dt[source]); }
  return f32(dt[source]) + f32(bias[i / p.chunk % p.heads]);
}

@compute @workgroup_size(64)
fn step_sizes(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
              @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.size) { return; }
  let source = place(i);
  var value = 0.0;
  if (source >= 0) {
    value = raw_step(source, i);
    if (p.softplus != 0u) { value = softplus(value); }
  }
  steps[i] = value;
}

// One invocation a head of a chunk: ddt, and the chunk's share of dbias.
@group(0) @binding(3) var<storage, read> dsteps: array<f32>;
@group(0) @binding(4) var<storage, read_write> ddt: array<elem>;
@group(0) @binding(5) var<storage, read_write> sums: array<f32>; // (batch, chunks, heads)

@compute @workgroup_size(64)
fn step_sizes_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                       @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups) * 64u + lane;
  if (row >= p.size / p.chunk) { return; }
  var sum = 0.0;
  for (var i = row * p.chunk; i < (row + 1u) * p.chunk; i++) {
    let source = place(i);
    if (source < 0) { break; }
    var slope = dsteps[i];
    if (p.softplus != 0u) { slope *= sigmoid(raw_step(source, i)); }
    ddt[source] = elem(slope);
    sum += slope;
  }
  sums[row] = sum;
}

// y_i = sum over j <= i of a · d_j, or with `suffix` over j > i, d being the step sizes. One invocation a head of a chunk.
@group(0) @binding(1) var<storage, read> d: array<f32>;
@group(0) @binding(2) var<storage, read> a: array<elem>; // (heads)
@group(0) @binding(3) var<storage, read_write> segments: array<f32>;

@compute @workgroup_size(64)
fn segment_sums(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups) * 64u + lane;
  if (row >= p.size / p.chunk) { return; }
  let rate = f32(a[row % p.heads]);
  var sum = 0.0;
  for (var k = 0u; k < p.chunk; k++) {
    let i = row * p.chunk + select(k, p.chunk - 1u - k, p.suffix != 0u);
    if (p.suffix != 0u) { segments[i] = rate * sum; }
    sum += d[i];
    if (p.suffix == 0u) { segments[i] = rate * sum; }
  }
}

// The slope of a · d_j is the sum of those of all segments that hold it: the same walk from the other end.
@group(0) @binding(3) var<storage, read> dsegments: array<f32>;
@group(0) @binding(4) var<storage, read_write> dd: array<f32>;

@compute @workgroup_size(64)
fn segment_sums_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                         @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups) * 64u + lane;
  if (row >= p.size / p.chunk) { return; }
  let rate = f32(a[row % p.heads]);
  var slope = 0.0;
  var total = 0.0;
  for (var k = 0u; k < p.chunk; k++) {
    let i = row * p.chunk + select(p.chunk - 1u - k, k, p.suffix != 0u);
    if (p.suffix == 0u) { slope += dsegments[i]; }
    dd[i] = rate * slope;
    total += d[i] * slope;
    if (p.suffix != 0u) { slope += dsegments[i]; }
  }
  sums[row] = total; // the chunk's share of da
}
