// y = a + b, element by element.                                                     a, b, y (size), in parts
import package::lib::part::{part, wide};
import package::lib::map::my_parts;

struct Params { size: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<part>;
@group(0) @binding(2) var<storage, read> b: array<part>;
@group(0) @binding(3) var<storage, read_write> y: array<part>;

@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { y[i] = part(wide(a[i]) + wide(b[i])); }
}
