//! Which loop computes what: by shape, by the number of sources, by where the stripe lies.

/// The `apply` of a kernel whose lane is `$lane`, for functions that have its instructions. Loops are
/// unrolled for as many sources as `$counts` says, and factors of `$tiles` sources are kept in registers.
macro_rules! apply_with {
    ($lane:ty, $features:literal, [$($count:literal)*], [$($tile:literal)*]) => {
        fn apply(
            transform: &Transform,
            sources: &[Source<'_>],
            targets: &mut [Target<'_>],
            accumulate: bool,
        ) {
            // SAFETY: this kernel is only chosen where its instructions are; `Transform::apply` checked
            // lengths.
            unsafe {
                match (transform.shape, accumulate) {
                    (Shape::Xor, false) => xor(sources, targets),
                    (Shape::Xor, true) => xor_onto(sources, targets),
                    (Shape::PlusQ, false) => plus_q(transform, sources, targets),
                    (Shape::FourPoint, false) if targets.len() == 4 => {
                        four_point::<4>(transform, sources, targets);
                    }
                    (Shape::FourPoint, false) => four_point::<3>(transform, sources, targets),
                    // Four rows at a time, then the rest.
                    _ => {
                        for (tile, targets) in targets.chunks_mut(4).enumerate() {
                            let row = 4 * tile;
                            match targets.len() {
                                1 => rows::<1>(transform, row, sources, targets, accumulate),
                                2 => rows::<2>(transform, row, sources, targets, accumulate),
                                3 => rows::<3>(transform, row, sources, targets, accumulate),
                                _ => rows::<4>(transform, row, sources, targets, accumulate),
                            }
                        }
                    }
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn xor(sources: &[Source<'_>], targets: &mut [Target<'_>]) {
            let plan = Plan::new(sources.len(), targets, false, <$lane>::BYTES, Groups::FOR_CACHE);
            let mut from = 0;
            while let Some(span) = plan.span(from) {
                from = span.to;
                let (groups, top) = sources.split_at(sources.len() - plan.top);
                // SAFETY: this function has the lane's instructions.
                unsafe {
                    match top.len() {
                        $($count => steps::xor::<$lane, $count, false>(top, targets, span),)*
                        _ => steps::xor::<$lane, 0, false>(top, targets, span),
                    }
                    for group in groups.chunks_exact(GROUP) {
                        steps::xor::<$lane, GROUP, true>(group, targets, span);
                    }
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn xor_onto(sources: &[Source<'_>], targets: &mut [Target<'_>]) {
            let plan = Plan::new(sources.len(), targets, true, <$lane>::BYTES, Groups::FOR_CACHE);
            let mut from = 0;
            while let Some(span) = plan.span(from) {
                from = span.to;
                // SAFETY: this function has the lane's instructions.
                unsafe { steps::xor::<$lane, 0, true>(sources, targets, span) }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn plus_q(t: &Transform, sources: &[Source<'_>], targets: &mut [Target<'_>]) {
            let plan = Plan::new(sources.len(), targets, false, <$lane>::BYTES, Groups::FOR_CACHE);
            let mut from = 0;
            while let Some(span) = plan.span(from) {
                from = span.to;
                let (groups, top) = sources.split_at(sources.len() - plan.top);
                // SAFETY: this function has the lane's instructions.
                unsafe {
                    match top.len() {
                        $($count => steps::plus_q::<$lane, $count, false>(t, top, targets, span),)*
                        _ => steps::plus_q::<$lane, 0, false>(t, top, targets, span),
                    }
                    for group in groups.chunks_exact(GROUP).rev() {
                        steps::plus_q::<$lane, GROUP, true>(t, group, targets, span);
                    }
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn four_point<const M: usize>(
            t: &Transform,
            sources: &[Source<'_>],
            targets: &mut [Target<'_>],
        ) {
            let groups = if <$lane>::WIDE { Groups::FOR_CACHE } else { Groups::NONE };
            let plan = Plan::new(sources.len(), targets, false, <$lane>::BYTES, groups);
            let mut from = 0;
            while let Some(span) = plan.span(from) {
                from = span.to;
                let (groups, top) = sources.split_at(sources.len() - plan.top);
                let first = groups.len();
                // SAFETY: this function has the lane's instructions.
                unsafe {
                    match top.len() {
                        $($count => {
                            steps::four_point::<$lane, $count, M, false>(t, first, top, targets, span);
                        })*
                        _ => steps::four_point::<$lane, 0, M, false>(t, first, top, targets, span),
                    }
                    for (index, group) in groups.chunks_exact(GROUP).enumerate() {
                        let first = index * GROUP;
                        steps::four_point::<$lane, GROUP, M, true>(t, first, group, targets, span);
                    }
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn rows<const M: usize>(
            t: &Transform,
            row: usize,
            sources: &[Source<'_>],
            targets: &mut [Target<'_>],
            accumulate: bool,
        ) {
            const { assert!(M <= 4) };
            let most = const { parts::tile(M, <$lane>::FACTORS) };
            let groups = const { Groups::for_factors(M, <$lane>::FACTORS) };
            let plan = Plan::new(sources.len(), targets, accumulate, <$lane>::BYTES, groups);
            let mut from = 0;
            while let Some(span) = plan.span(from) {
                from = span.to;
                let (groups, top) = sources.split_at(sources.len() - plan.top);
                let at = (row, groups.len());
                // SAFETY: this function has the lane's instructions.
                unsafe {
                    match top.len() {
                        $($tile if !accumulate && const { $tile <= parts::tile(M, <$lane>::FACTORS) } => {
                            steps::tile::<$lane, $tile, M, false>(t, at, top, targets, span);
                        })*
                        $($count if plan.streams() => {
                            steps::rows::<$lane, $count, M>(t, at, top, targets, false, span);
                        })*
                        _ => steps::rows::<$lane, 0, M>(t, at, top, targets, accumulate, span),
                    }
                    for (index, group) in groups.chunks_exact(most.max(1)).enumerate() {
                        let at = (row, index * most);
                        match most {
                            $($tile if const { $tile == parts::tile(M, <$lane>::FACTORS) } => {
                                steps::tile::<$lane, $tile, M, true>(t, at, group, targets, span);
                            })*
                            _ => steps::rows::<$lane, 0, M>(t, at, group, targets, true, span),
                        }
                    }
                }
            }
        }
    };
}
pub(super) use apply_with;
