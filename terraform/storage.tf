# The source archives, one per release: what a revision was built from.
resource "google_storage_bucket" "source" {
  name                        = "${var.project}-recado-source"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = 90
    }
  }
}

resource "google_storage_bucket_iam_member" "source_writer" {
  bucket = google_storage_bucket.source.name
  role   = "roles/storage.objectUser"
  member = google_service_account.pipeline.member
}

# Blobs: what is too large for a session's document, such as a long message that waits for its run.
resource "google_storage_bucket" "files" {
  name                        = "${var.project}-recado-files"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  soft_delete_policy {
    retention_duration_seconds = 0 # people wrote this: deleted is deleted
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = var.retention_days + 30 # a blob is as much older than its finished run as that waited
    }
  }
}

# Each of them takes messages in, and whoever writes a blob again, as a repeated webhook does, must be able to replace it.
resource "google_storage_bucket_iam_member" "files_user" {
  for_each = module.function

  bucket = google_storage_bucket.files.name
  role   = "roles/storage.objectUser"
  member = each.value.member
}
