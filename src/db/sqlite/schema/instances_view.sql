-- View `instances`: one row for each SOP Instance at its first location. schema.rs fills in columns
-- and times. Place 2 is metadata only, 3 an archive file (table directory). packing.rs describes
-- uid_suffix.
CREATE VIEW instances AS
WITH decoded AS (
    SELECT i.*, h.series, h.directory, h.uid_prefix, h.file_prefix, h.file_suffix, h.file_digits, h.mtime_base,
           h.size_base, {times},
           CASE typeof(i.uid_suffix)
               WHEN 'text' THEN i.uid_suffix
               ELSE CASE WHEN substr(hex(i.uid_suffix), 1, 1) = 'B'
                   THEN replace(replace(substr(hex(i.uid_suffix), 2), 'A', '.'), 'F', '')
                   ELSE h.uid_prefix || replace(replace(hex(i.uid_suffix), 'A', '.'), 'F', '') END
           END AS uid
    FROM instance i JOIN instance_group h ON h.id = i.instance_group
)
SELECT e.study AS study, x.series AS series, s.study_instance_uid, e.series_instance_uid, x.uid AS sop_instance_uid,
       h.sop_class_uid, h.available_transfer_syntax_uid, CAST(x.instance_number AS TEXT) AS instance_number,
       {columns},
       CASE d.place WHEN 2 THEN NULL ELSE
           d.path || CASE WHEN d.place = 3 THEN '!/' WHEN d.path = '/' THEN '' ELSE '/' END
                  || CASE typeof(x.file_name)
                      WHEN 'null' THEN x.file_prefix || x.uid || x.file_suffix
                      WHEN 'integer' THEN x.file_prefix || printf('%0*d', x.file_digits, x.file_name) || x.file_suffix
                      ELSE x.file_name END END AS path,
       CASE WHEN h.declared_set <> '' THEN (SELECT json_group_object(key, value)
           FROM json_each(json_patch(json_patch(ifnull(h.declared_above, '{}'), ifnull(h.declared, '{}')), ifnull(x.diff, '{}'))) WHERE substr(key, 1, 1) = '+') END AS declared,
       x.size_base + x.size AS size, (x.mtime_base + x.mtime) / 1000.0 AS mtime,
       CASE WHEN x.checksum IS NULL THEN NULL ELSE lower(hex(x.checksum)) END AS checksum,
       r.first_ms AS received_ms, h.changed_ms, h.change, r.kind AS arrival, r.calling_ae_title AS sender,
       r.address AS sender_address, r.scan
FROM decoded x
JOIN instance_group h ON h.id = x.instance_group
JOIN directory d ON d.id = x.directory
JOIN study_series e ON e.id = x.series
JOIN study s ON s.id = e.study
LEFT JOIN arrival r ON r.id = h.arrival;
