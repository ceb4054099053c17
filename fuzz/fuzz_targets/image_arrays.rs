#![no_main]

heat_fuzz::target!("image_arrays");
