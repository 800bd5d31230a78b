//! Dates and times (PS3.5 6.2, VRs DA, TM, DT) by their meaning.
