-- The views: the interface of the index for other programs. They are made anew with each new schema version.

CREATE VIEW studies AS
SELECT s.id AS study, ifnull(p.person, p.id) AS patient, p.patient_id, p.patient_name, p.patient_birth_date, p.patient_sex,
       s.study_instance_uid, s.study_date, s.study_time, s.accession_number, s.study_id, s.study_description,
       s.modalities_in_study, s.sop_classes_in_study, s.series_count AS number_of_study_related_series,
       s.instance_count AS number_of_study_related_instances, s.referring_physician_name, s.physicians_of_record,
       s.name_of_physicians_reading_study, s.admitting_diagnoses_description, s.issuer_of_accession_number_sequence,
       s.procedure_code_sequence, s.referenced_study_sequence, s.patient_age, s.patient_size, s.patient_weight,
       s.occupation, s.additional_patient_history, s.admission_id, s.other_study_numbers,
       s.requested_procedure_description, s.study_comments, s.timezone_offset_from_utc,
       s.anatomic_regions_in_study_code_sequence,
       (SELECT min(r.first_ms) FROM study_series e JOIN instance_group h ON h.series = e.id JOIN arrival r ON r.id = h.arrival
        WHERE e.study = s.id) AS received_ms,
       (SELECT max(h.changed_ms) FROM study_series e JOIN instance_group h ON h.series = e.id WHERE e.study = s.id) AS changed_ms,
       (SELECT max(h.change) FROM study_series e JOIN instance_group h ON h.series = e.id WHERE e.study = s.id) AS change,
       p.issuer_of_patient_id, p.patient_birth_time, p.other_patient_ids,
       p.other_patient_names, p.other_patient_ids_sequence, p.ethnic_group, p.patient_comments,
       p.referenced_patient_sequence
FROM study s JOIN patient p ON p.id = s.patient;

CREATE VIEW series AS
SELECT e.id AS series, e.study, s.study_instance_uid, e.series_instance_uid, e.modality, e.series_number,
       e.series_description, e.instance_count AS number_of_series_related_instances, e.series_date, e.series_time,
       e.body_part_examined, e.laterality, e.patient_position, e.protocol_name, e.station_name, e.institution_name,
       e.institutional_department_name, e.manufacturer, e.manufacturer_model_name, e.device_serial_number,
       e.software_versions, e.performing_physician_name, e.operators_name, e.frame_of_reference_uid,
       e.performed_procedure_step_start_date, e.performed_procedure_step_start_time, e.performed_procedure_step_id,
       e.performed_procedure_step_description, e.request_attributes_sequence, e.institution_address,
       e.institution_code_sequence, e.anatomic_region_sequence,
       (SELECT min(r.first_ms) FROM instance_group h JOIN arrival r ON r.id = h.arrival WHERE h.series = e.id) AS received_ms,
       (SELECT max(h.changed_ms) FROM instance_group h WHERE h.series = e.id) AS changed_ms,
       (SELECT max(h.change) FROM instance_group h WHERE h.series = e.id) AS change
FROM study_series e JOIN study s ON s.id = e.study;
