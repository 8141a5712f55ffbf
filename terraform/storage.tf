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
