//! Archive files: zip, tar and gzip.

mod opening;
