//! Lets the binary find libtorch where it was built against it, so that it runs without
//! `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
    }
    // The CUDA libraries are loaded by hand, and only where there are some (src/device.rs).
    println!("cargo:rustc-link-arg=-Wl,--as-needed");
}
